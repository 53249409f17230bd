"""Fit a pretrained model to labels: what finetune and classify-species share."""
