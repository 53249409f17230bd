"""Verb `embed`: vectors of regions and sequences."""
