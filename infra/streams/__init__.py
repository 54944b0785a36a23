"""Event streams: where events come from, and the worker that brings them to the log and the online store."""
