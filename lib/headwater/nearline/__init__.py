"""The bodies of ingest_events, build_sequences and score_topn, and the warm stream that runs them round after round."""
