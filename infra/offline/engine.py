"""Open DuckDB connections with bounded memory, in UTC, that spill into the project's state folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from skewless.contract.errors import DefinitionError
from skewless.infra.host.priority import run_at_low_priority


def connect(spill: Path, *, memory_limit: str = "1GB", threads: int = 0) -> duckdb.DuckDBPyConnection:
    """Return an in-memory database; work beyond the limit spills into ``spill``."""
    config: dict[str, Any] = {
        "memory_limit": memory_limit,
        "temp_directory": str(spill),
        "preserve_insertion_order": "true",
        "autoinstall_known_extensions": "false",
    }
    if threads:
        config["threads"] = threads
    try:
        # DuckDB starts its threads here. They get a low priority, whichever thread queries it later.
        connection = run_at_low_priority(lambda: duckdb.connect(":memory:", config=config))
        connection.execute("SET TimeZone = 'UTC'")
        # DuckDB shows it on stdout in a program that it takes for interactive, such as `python -c`.
        connection.execute("SET enable_progress_bar = false")
        # Both optimizations replace a window or a join by arg_max, which passes values through sort keys: they would
        # turn -0.0 into 0.0, and all NaN into one.
        connection.execute("SET disabled_optimizers = 'top_n_window_elimination'")
        connection.execute("SET asof_loop_join_threshold = 0")
    except duckdb.Error as error:
        raise DefinitionError(
            "setting 'memory_limit'", str(error), value=memory_limit, fix="use a size such as 1GB"
        ) from error
    return connection
