"""Output files: tables, and writing that leaves no half file."""
