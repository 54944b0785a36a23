"""Event streams: adapters, and the workers that append events to the log and apply them to the online store."""
