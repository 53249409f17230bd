"""Verb `classify-species`: train, evaluate and apply classifiers of genomes."""
