"""Whether a windowed view can sum the events that its log holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from skewless.contract.arrow_types import arrow_type
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.log.event_log import EventLog
from skewless.infra.log.partitions import log_partitions
from skewless.infra.offline.window_events import LogPart, WindowEvents

if TYPE_CHECKING:
    import duckdb


def check_held_types(log_root: Path, source: EventSource) -> None:
    """Check that the log of a source can take its columns: a stream worker would be refused later, at its first event.

    Args:
        log_root: folder of all logs.

    Raises:
        SourceError: the log holds a column with another type.
        StoreError: a file of the log is damaged.
    """
    for partition in log_partitions(log_root, source.name):
        held = {field.name: field.type for field in EventLog(log_root, partition).schema()}
        for column in source.columns:
            found = held.get(column.name, pa.null())
            if not pa.types.is_null(found) and found != arrow_type(column.dtype):
                raise SourceError(
                    f"event source {source.name!r} column {column.name!r}",
                    f"is declared as {column.dtype}, but events in the log have it as {_name(found)}",
                    fix="give the column of the new type a new name",
                )


def _name(held: pa.DataType) -> str:
    return next((str(dtype) for dtype in DType if arrow_type(dtype) == held), str(held))


def check_sums(connection: duckdb.DuckDBPyConnection, view: WindowView, parts: Sequence[LogPart]) -> None:
    """Check that no accepted event is too large for a view to sum exactly: it would not count in the view.

    New events of that kind are refused when they come (SEMANTICS 3.9).

    Raises:
        SourceError: some are; names the column and how many.
    """
    for column, count in WindowEvents(connection, view, parts, {}, known=False).beyond().items():
        digits = view.scales.get(column, 0)
        lower = f"lower the tag skewless.scale.{column}, which is {digits}, or " if digits else ""
        raise SourceError(
            f"windowed view {view.name!r} column {column!r}",
            "is too large in accepted events to be summed exactly",
            value=f"{count} {'event' if count == 1 else 'events'}",
            fix=f"{lower}leave them out by a bool column and the tag skewless.where",
        )
