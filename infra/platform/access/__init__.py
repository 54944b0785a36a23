"""API keys and their store."""
