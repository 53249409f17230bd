"""Verbs `pretrain` and `evaluate`: training and perplexity of next-nucleotide models."""
