"""Training: the loop, data order, memory, checkpoints and the run directory."""
