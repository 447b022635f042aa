"""Model quality: held-out cases, full-catalogue ranking, metrics, baselines, and the gate."""
