"""Alerts about a project, and the webhook that sends them."""
