"""Adapters: DuckDB, log, Redis, model runtimes and packages, Feast."""
