"""Rollouts: what the traffic of a model is next, from what both arms have shown."""
