"""The database of a project in PostgreSQL, for several machines."""
