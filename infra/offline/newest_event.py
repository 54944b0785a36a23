"""The time of the newest event in a log."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from skewless.contract.errors import StoreError
from skewless.infra.log.accepted import EVENT, REJECT


def newest_event_us(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> int | None:
    """Return the latest event time of the accepted rows of some log files, UTC microseconds; None: there are none.

    Raises:
        StoreError: a file is damaged.
    """
    if not files:
        return None
    query = f"SELECT max({EVENT}) FROM read_parquet(?, union_by_name = true) WHERE {REJECT} IS NULL"
    try:
        ((newest,),) = connection.execute(query, [list(files)]).fetchall()
    except duckdb.Error as error:
        raise StoreError("log", f"cannot be read: {error}", fix="restore the damaged file") from error
    return None if newest is None else int(newest)
