"""Inference: batching, pooling and what is read off a model."""
