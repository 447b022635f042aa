"""How good is a model: held-out cases, full-catalogue ranking, metrics, baselines, and the gate."""
