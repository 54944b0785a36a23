"""Where trainings are shown beside each other: a port, and what publishes to MLflow."""
