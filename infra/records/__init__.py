"""Records: the logs of predictions and of their outcomes."""
