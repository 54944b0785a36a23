"""Traffic policies of models, and the servers' counts of each version."""
