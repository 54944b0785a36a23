"""One DuckDB for all examples."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from skewless.infra.reads.offline.engine import connect


@pytest.fixture(scope="session")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(tmp_path_factory.mktemp("spill"), threads=1) as one:
        yield one
