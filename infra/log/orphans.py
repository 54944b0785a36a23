"""Objects that no log lists, as they are: of an interrupted append, or listed by a database that was lost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.contract.errors import StoreError
from skewless.infra.log.log_columns import INGEST, KNOWN_AT, RUN, SEQ
from skewless.infra.log.reading import conform, read_tables
from skewless.infra.storage.objects import ObjectStorage, StoredObject

_NAME = re.compile(r"log/(?P<partition>.+)/(?P<first>\d{20})-[0-9a-f]{12}\.parquet")
_OF_ATTEMPT = (INGEST, KNOWN_AT, RUN)  # differ if the same rows are appended again


class Orphan(NamedTuple):
    """An object with the name of a position, and complete rows.

    Args:
        partition: of the log that it was written for.
        first: position of its first row.
        rows: their number.
        schema: of the file.
        at_us: time of its latest row.
        known_us: when all its rows had been applied; None: unknown.
        runs: the materialization runs that its rows name, each with the earliest time of its rows.
    """

    stored: StoredObject
    partition: str
    first: int
    rows: int
    schema: pa.Schema
    at_us: int = 0
    known_us: int | None = None
    runs: Mapping[int, int] = {}

    @property
    def last(self) -> int:
        """Position of its last row."""
        return self.first + self.rows - 1

    @property
    def is_merged(self) -> bool:
        """Whether compaction wrote it: then all its rows were part of the log."""
        return KNOWN_AT in self.schema.names or SEQ not in self.schema.names


def parse_name(name: str) -> tuple[str, int] | None:
    """Return partition and first position of an object's name; None if it has none.

    >>> parse_name("log/events/arrivals/ab12/0/00000000000000000007-3f2a91c07b5d.parquet")
    ('events/arrivals/ab12/0', 7)
    """
    parts = _NAME.fullmatch(name)
    return None if parts is None else (parts["partition"], int(parts["first"]))


def read_orphan(storage: ObjectStorage, name: str) -> Orphan | None:
    """Return an object of ``parse_name``; None if it is incomplete, altered, or gone by now.

    Raises:
        StoreError: the storage is unavailable.
    """
    parts = parse_name(name)
    stored = describe_if_present(storage, name)
    if parts is None or stored is None:
        return None
    try:
        with pq.ParquetFile(storage.local_path(stored)) as file:
            schema, rows = file.schema_arrow, int(file.metadata.num_rows)
            added = file.read([each for each in (SEQ, INGEST, KNOWN_AT, RUN) if each in schema.names])
    except (OSError, pa.ArrowException):
        return None
    partition, first = parts
    if not rows or not _has_positions(added, first):
        return None
    orphan = Orphan(stored, partition, first, rows, schema, runs=_list_runs(added))
    return orphan._replace(at_us=_latest(added, INGEST) or 0, known_us=_latest(added, KNOWN_AT))


def describe_if_present(storage: ObjectStorage, name: str) -> StoredObject | None:
    """Return an object, None if it is gone by now.

    Raises:
        StoreError: the storage is unavailable.
    """
    try:
        return storage.describe(name)
    except StoreError:
        if any(item.name == name for item in storage.list_objects(name.rpartition("/")[0])):
            raise
        return None


def read_rows(
    storage: ObjectStorage, orphan: Orphan, first: int, last: int, schema: pa.Schema | None = None
) -> Iterator[pa.Table]:
    """Yield the rows at positions ``first`` to ``last``, both included; None: in the columns of the file."""
    path = storage.local_path(orphan.stored)
    return read_tables(path, orphan.first, first, last, orphan.schema if schema is None else schema)


def have_same_rows(storage: ObjectStorage, one: Orphan, other: Orphan, first: int, last: int) -> bool:
    """Return whether two objects have the same rows at some positions, as after a repeated append."""
    tables = [pa.concat_tables(read_rows(storage, each, first, last)) for each in (one, other)]
    return has_same_values(*tables)


def has_same_values(one: pa.Table, other: pa.Table) -> bool:
    """Return whether rows are equal, apart from times and run of their acceptance; a column that one lacks is null.

    >>> has_same_values(pa.table({"a": [1]}), pa.table({"a": [1], "b": pa.nulls(1, pa.int64())}))
    True
    """
    one, other = (
        table.drop_columns([name for name in _OF_ATTEMPT if name in table.column_names]) for table in (one, other)
    )
    try:
        schema = pa.unify_schemas([one.schema.remove_metadata(), other.schema.remove_metadata()])
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return bool(conform(one, schema).equals(conform(other, schema)))


def _has_positions(added: pa.Table, first: int) -> bool:
    if SEQ not in added.column_names:
        return True
    expected = np.arange(first, first + added.num_rows)
    return not added[SEQ].null_count and np.array_equal(added[SEQ].to_numpy(), expected)


def _latest(added: pa.Table, column: str) -> int | None:
    value = pc.max(added[column]).as_py() if column in added.column_names else None
    return None if value is None else int(value)


def _list_runs(added: pa.Table) -> dict[int, int]:
    if RUN not in added.column_names or INGEST not in added.column_names:
        return {}
    runs = added.filter(added[RUN].is_valid()).group_by(RUN).aggregate([(INGEST, "min")])
    return dict(zip(runs[RUN].to_pylist(), runs[f"{INGEST}_min"].to_pylist(), strict=True))
