"""Decisions: events that are scored in the order of the log, and their delivery to sinks."""
