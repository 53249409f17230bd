"""Readers of files, as iterators of small records; the only importers of pysam and Bio."""
