"""Verbs `models`, `doctor` and `merge`."""
