"""The database of everything small that changes, and files that survive a kill and a power cut."""
