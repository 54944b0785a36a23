"""The offline side: DuckDB over Parquet."""
