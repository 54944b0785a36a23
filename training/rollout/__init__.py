"""Rollouts: decide the next traffic policy of a model from the evidence of both arms."""
