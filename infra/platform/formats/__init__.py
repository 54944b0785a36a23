"""Formats of messages: the port of codecs, and the frame that names the schema of a message."""
