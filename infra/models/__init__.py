"""Models: their packages, the libraries that score them, rollouts and verdicts."""
