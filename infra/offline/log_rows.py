"""Reads some rows of logs by their positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skewless.infra.log.log_columns import SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.readers import register_reader
from skewless.infra.log.reading import translate_query_errors
from skewless.infra.storage.project_state import ProjectState

if TYPE_CHECKING:
    import duckdb


def read_rows_at(
    connection: duckdb.DuckDBPyConnection, state: ProjectState, partition: str, positions: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """Return the rows of a log partition at a few positions; a row whose segment was deleted is missing.

    Row groups without the positions are skipped, and of the others only the columns of the found rows are read.

    Raises:
        StoreError: a file is missing or corrupt.
    """
    register_reader(state.database)
    log = PartitionLog(state, partition)
    segments = {segment.first: segment for at in positions for segment in log.segments(at, at)}
    if not segments:
        return {}
    places = ", ".join(str(int(at)) for at in positions)
    query = f"SELECT * FROM read_parquet(?, union_by_name = true) WHERE {SEQ} IN ({places})"
    with translate_query_errors(f"log partition {partition!r}"):
        files = log.local_files(list(segments.values()))
        rows = connection.sql(query, params=[files]).to_arrow_table().to_pylist()
    return {row[SEQ]: row for row in rows}
