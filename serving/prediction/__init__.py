"""Scoring of parsed requests, without any transport: admission, batches, feature reads, scoring and logging."""
