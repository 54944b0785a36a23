"""Experiment tracking: its port, and the adapter that publishes to MLflow."""
