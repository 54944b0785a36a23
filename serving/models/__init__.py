"""Loaded model versions, and the versions that serve."""
