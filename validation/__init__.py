"""Validation: data gates, evaluation, drift, live quality, parity and replay."""
