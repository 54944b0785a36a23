"""The servers' counts of each version under a traffic policy."""
