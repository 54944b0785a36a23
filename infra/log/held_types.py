"""What an event source's log already holds: a column keeps its type for ever (SEMANTICS 8.2)."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from skewless.contract.arrow_types import arrow_type
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.windows.view import EventSource
from skewless.infra.log.event_log import EventLog
from skewless.infra.log.partitions import log_partitions


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
