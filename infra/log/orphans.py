"""Objects that no log lists, as they are: of an interrupted append, or listed by a database that was lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.infra.log.bucket_order import BucketOrder, plain_schema
from skewless.infra.log.log_columns import INGEST, KNOWN_AT, RUN, SEQ
from skewless.infra.platform.storage.objects import DamagedObjectError, ObjectStorage, StoredObject

_POSITIONED = re.compile(r"log/(?P<partition>.+)/(?P<first>\d{20})-[0-9a-f]{12}\.parquet")
_SHIPPED = re.compile(
    r"(?P<partition>[^/]+)/(?P<at>\d{20})-(?P<writer>[0-9a-f]{12})-(?P<number>\d{6,})-[0-9a-f]{12}\.parquet"
)
_TIMES = (INGEST, "received_at", "t")  # of accepted rows and events, of outcomes, and of predictions


class Orphan(NamedTuple):
    """A complete object that no log lists: of an interrupted append, or listed by a database that was lost.

    Args:
        partition: of the log that it was written for.
        first: position of its first row; 0 for a shipped file.
        rows: their number.
        schema: of its rows.
        at_us: time of its latest row.
        known_us: when all its rows had been applied; None: unknown.
        runs: the materialization runs that its rows name, each with the earliest time of its rows.
        file: writer and number of a shipped file.
    """

    stored: StoredObject
    partition: str
    first: int
    rows: int
    schema: pa.Schema
    at_us: int
    known_us: int | None
    runs: Mapping[int, int]
    file: tuple[str, int] | None

    @property
    def last(self) -> int:
        """Position of its last row."""
        return self.first + self.rows - 1

    @property
    def is_merged(self) -> bool:
        """Whether compaction wrote it: then all its rows were part of the log."""
        return self.file is None and (KNOWN_AT in self.schema.names or SEQ not in self.schema.names)


def read_orphan(storage: ObjectStorage, name: str) -> Orphan | None:
    """Return an object; None if it has another kind of name, is incomplete or altered, or is gone by now.

    Raises:
        StoreError: the storage is unavailable.
    """
    positioned, shipped = _POSITIONED.fullmatch(name), _SHIPPED.fullmatch(name)
    if (parts := positioned or shipped) is None:
        return None
    try:
        stored = storage.describe(name)
        with pq.ParquetFile(storage.local_path(stored)) as file:
            schema, rows = file.schema_arrow, int(file.metadata.num_rows)
            time = next((each for each in _TIMES if each in schema.names), None)
            added = file.read([each for each in (SEQ, KNOWN_AT, RUN, time) if each in schema.names])
            if BucketOrder.read(schema) is not None:
                added = added.sort_by(SEQ)
    except (DamagedObjectError, OSError, pa.ArrowException):
        return None
    first = int(positioned["first"]) if positioned else 0
    if not rows or not _has_positions(added, first):
        return None
    latest = {each: pc.max(added[each]).as_py() for each in added.column_names}
    return Orphan(
        stored=stored,
        partition=parts["partition"],
        first=first,
        rows=rows,
        schema=plain_schema(schema),
        at_us=int(shipped["at"] if shipped else latest.get(time) or 0),
        known_us=latest.get(KNOWN_AT),
        runs=_list_runs(added),
        file=(shipped["writer"], int(shipped["number"])) if shipped else None,
    )


def _has_positions(added: pa.Table, first: int) -> bool:
    if SEQ not in added.column_names:
        return True
    expected = np.arange(first, first + added.num_rows)
    return not added[SEQ].null_count and np.array_equal(added[SEQ].to_numpy(), expected)


def _list_runs(added: pa.Table) -> dict[int, int]:
    if RUN not in added.column_names or INGEST not in added.column_names:
        return {}
    runs = added.filter(added[RUN].is_valid()).group_by(RUN).aggregate([(INGEST, "min")])
    return dict(zip(runs[RUN].to_pylist(), runs[f"{INGEST}_min"].to_pylist(), strict=True))
