"""Drift: compares live feature values, scores and labels with the training data."""
