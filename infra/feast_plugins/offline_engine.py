"""A DuckDB connection for one retrieval, with the project's limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
from feast.repo_config import RepoConfig

from skewless.infra.offline.engine import connect
from skewless.infra.offline.sql import text
from skewless.infra.sources.place import repo_of, settings_of, state_of


@contextmanager
def engine(config: RepoConfig) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection that finds files relative to the repo and spills into the state folder.

    Raises:
        DefinitionError: a setting cannot be right.
    """
    settings = settings_of(config)
    store = config.offline_store
    limit = getattr(store, "memory_limit", None) or settings.memory_limit
    threads = getattr(store, "threads", None) or settings.threads
    with connect(state_of(config) / "spill", memory_limit=limit, threads=threads) as connection:
        connection.execute(f"SET file_search_path = {text(str(repo_of(config)))}")
        yield connection
