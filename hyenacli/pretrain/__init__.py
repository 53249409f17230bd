"""Verbs `pretrain` and `evaluate`: next-nucleotide models, and how well they predict."""
