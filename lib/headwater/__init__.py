"""Headwater keeps every user's Top-N list fresh: logs → events → sequences → models → lists → feedback.

The rooms, from the bottom up; imports point down only::

    config errors schemas clock          plain data, no Spark and no torch
    spark tables                         the session; all that knows Delta
    ingest sequences popularity          DataFrame → DataFrame
    models                               pure torch: encoders, losses, the scorer
    training                             snapshot, readers, loop, distribution, checkpoints
    tracking                             all that knows MLflow
    evaluation scoring feedback privacy  metrics and gate, Top-N, rewards, pseudonyms
    report                               one HTML page for people
    job                                  what every entry point in jobs/ shares
"""

__version__ = "0.1.0"
