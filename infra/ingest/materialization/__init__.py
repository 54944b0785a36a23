"""Materialization: appends source rows to the accepted log, and writes each entity's latest row to the online store."""
