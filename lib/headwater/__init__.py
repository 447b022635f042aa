"""Headwater keeps every user's Top-N list fresh: logs → events → sequences → models → lists → feedback.

The rooms, from the bottom up; imports point down only::

    errors schemas encoders clock local text  plain data, no Spark and no torch; what lies on this machine
    config work                               every setting; the folder of what can be made again
    spark device                              the session; whether to compute on a GPU
    tables in_hand                            all that knows Delta; few rows, collected once
    ingest privacy                            lines → events, quarantine, catalogue; pseudonyms
    sequences popularity                      events → what each user did last, what is popular
    models                                    pure torch: encoders, losses, the ranker
    training                                  snapshot, readers, loop, distribution, checkpoints
    tracking                                  all that knows MLflow
    evaluation scoring feedback               metrics and gate, Top-N, rewards
    report                                    one HTML page for people
    job                                       what every entry point in jobs/ shares
    nearline                                  the bodies of ingest, build and score, and the stream of them
"""

__version__ = "0.1.0"
