"""Feast data sources: DuckDB tables, the paths of a Feast repo, and the columns of a source."""
