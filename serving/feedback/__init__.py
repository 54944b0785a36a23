"""Outcomes that come over HTTP."""
