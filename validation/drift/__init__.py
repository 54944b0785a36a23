"""Drift: live feature values and scores against those of training."""
