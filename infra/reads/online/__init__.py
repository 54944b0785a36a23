"""The online store: its interface, and the adapter for Redis and Valkey."""
