"""Readers of files, as iterators of small records; which with the writers alone import pysam."""
