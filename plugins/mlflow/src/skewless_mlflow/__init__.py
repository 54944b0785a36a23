"""MLflow as the tracker of trained versions."""
