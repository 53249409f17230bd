"""Readers of files, as iterators of small records; the only importers of pysam, pyfaidx and Bio."""
