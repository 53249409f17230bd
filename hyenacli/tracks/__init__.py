"""Verbs that show what a model reads base by base."""
