"""Checks of a model's files and of a device's arithmetic."""
