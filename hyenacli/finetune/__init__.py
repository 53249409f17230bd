"""Verbs `finetune` and `predict`: labelled sequences, and models fitted to them."""
