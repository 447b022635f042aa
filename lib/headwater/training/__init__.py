"""From sequences to weights: snapshot, readers, epoch loop, distribution, checkpoints, model artifact."""
