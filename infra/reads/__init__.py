"""Reads: point-in-time joins of the log, the online store, and the engines of large work."""
