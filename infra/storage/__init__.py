"""Durable storage: the database of everything small, and files that survive a kill and a power cut."""
