"""Verb `generate`: new sequences that follow prompts."""
