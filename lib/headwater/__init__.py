"""Headwater keeps every user's Top-N list fresh: logs → events → sequences → models → lists → feedback.

Packages from the bottom up; a module imports only from its own row or from rows above it::

    errors schemas encoders clock local text  plain data without Spark or torch; local files and cores
    config work                               every setting; the folder for data that can be recreated
    spark device                              the session; whether to compute on a GPU
    tables frames                             everything about Delta; small frames, collected once
    ingest privacy                            lines → events, quarantine, catalogue; pseudonyms
    sequences popularity                      events → per-user sequences; events → popularity
    models                                    pure torch: encoders, losses, the ranker
    training                                  snapshot, readers, loop, distribution, checkpoints
    tracking                                  everything about MLflow
    evaluation scoring feedback               metrics and gate, Top-N, rewards
    report                                    one HTML page for people
    job                                       code shared by all entry points in jobs/
    nearline                                  the bodies of ingest, build and score, and the stream that runs them
"""

__version__ = "0.1.0"
