"""Genome values (DNA, regions, variants) from the standard library only; positions are 0-based half-open."""
