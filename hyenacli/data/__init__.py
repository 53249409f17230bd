"""Records to tensors: splits, windows and the sampler."""
