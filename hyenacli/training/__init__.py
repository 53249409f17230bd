"""The training loop and what stands around it: data order, memory, checkpoints, run directory."""
