"""Data sources of Feast: ours for DuckDB files, where a repo lies, and what columns a source has."""
