"""Ingest: from streams and tables to the accepted log, the states of windows and the latest rows."""
