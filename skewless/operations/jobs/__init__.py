"""The scheduler and its runs."""
