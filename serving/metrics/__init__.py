"""Metrics of the server and their text format."""
