"""Checkpoint formats: native, official, Hugging Face, MultiMolecule; read any, write any."""
