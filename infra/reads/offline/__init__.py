"""The offline store: point-in-time reads of sources and accepted logs with DuckDB."""
