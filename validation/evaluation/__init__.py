"""Evaluation: the metrics of training, gates and live quality, and their intervals."""
