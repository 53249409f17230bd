"""Verb `score-variants`: how likely a model finds each allele."""
