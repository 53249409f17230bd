"""Metrics and their intervals, calibration, baseline models, plots and the report page."""
