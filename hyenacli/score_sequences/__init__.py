"""Verb `score-sequences`: how likely a model finds sequences."""
