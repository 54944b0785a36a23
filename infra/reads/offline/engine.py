"""Open DuckDB connections with bounded memory, in UTC, that spill into the project's state folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skewless.contract.errors import DefinitionError
from skewless.infra.platform.host.priority import run_at_low_priority

if TYPE_CHECKING:
    import duckdb

_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def connect(spill: Path, *, memory_limit: str = "1GB", threads: int = 0) -> duckdb.DuckDBPyConnection:
    """Return an in-memory database; work beyond the limit spills into ``spill``."""
    import duckdb  # noqa: PLC0415 - commands that only ask for its limit do without

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
        connection.execute("SET VARIABLE memory_limit = ?", [memory_limit])
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


def read_memory_limit(connection: duckdb.DuckDBPyConnection) -> int:
    """Return DuckDB's memory limit in bytes, as DuckDB rounds it.

    >>> import duckdb
    >>> read_memory_limit(duckdb.connect(config={"memory_limit": "1GiB"}))
    1073741824
    """
    rows = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    number, unit = str(rows[0][0]).split()
    return int(float(number) * _UNITS[unit])


@contextmanager
def leave_memory(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Leave a fifth of DuckDB's memory limit to Arrow within the block: to rows on their way to the log and the store.

    Sorting a large source takes DuckDB's whole limit, and these rows come on top.
    """
    connection.execute(f"SET memory_limit = '{read_memory_limit(connection) * 4 // 5}B'")
    try:
        yield
    finally:  # DuckDB shows its limit with two digits only: `connect` keeps the setting in a variable
        connection.execute("SET memory_limit = getvariable('memory_limit')")
