"""Check new definitions against the events in the log: column types, and values that sums can represent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from skewless.contract.arrow_types import arrow_type
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.log.catalog import log_partitions
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.window_events import LogPartition, WindowEvents

if TYPE_CHECKING:
    import duckdb


def check_logged_types(state: ProjectState, source: EventSource) -> None:
    """Check that the log of a source has its columns with the declared types: else a stream worker would fail later.

    Args:
        state: of the project.

    Raises:
        SourceError: the log has a column with another type.
        StoreError: a file of the log is corrupt.
    """
    for partition in log_partitions(state, source.name):
        logged = {field.name: field.type for field in PartitionLog(state, partition).schema()}
        for column in source.columns:
            logged_type = logged.get(column.name, pa.null())
            if not pa.types.is_null(logged_type) and logged_type != arrow_type(column.dtype):
                name = next((str(dtype) for dtype in DType if arrow_type(dtype) == logged_type), str(logged_type))
                raise SourceError(
                    f"event source {source.name!r} column {column.name!r}",
                    f"is declared as {column.dtype}, but is {name} in the log",
                    fix="use a new name for the column with the new type",
                )


def check_sums(connection: duckdb.DuckDBPyConnection, view: WindowView, parts: Sequence[LogPartition]) -> None:
    """Check that no accepted event has a value too large for an exact sum: it would not count in the view.

    New events with such values are rejected (SEMANTICS 3.9).

    Raises:
        SourceError: names the column and the number of such events.
    """
    for column, count in WindowEvents(connection, view, parts, {}, known=False).count_unsummable().items():
        digits = view.scales.get(column, 0)
        lower = f"lower the tag skewless.scale.{column}, which is {digits}, or " if digits else ""
        raise SourceError(
            f"windowed view {view.name!r} column {column!r}",
            "has values in accepted events that are too large for an exact sum",
            value=f"{count} {'event' if count == 1 else 'events'}",
            fix=f"{lower}exclude these events with a bool column and the tag skewless.where",
        )
