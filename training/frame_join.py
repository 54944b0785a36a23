"""Adds the features of a service to rows of another engine's frame, on whichever machine the rows are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import find_nulls
from skewless.contract.arrow_types import arrow_type
from skewless.contract.buckets import find_buckets
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.rows import empty_read
from skewless.contract.spec import TimeMode
from skewless.contract.vector import Assembler
from skewless.contract.windows.view import WindowView
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.engines.job import spill_folder
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.entity_file import EntityFile, required_columns
from skewless.infra.reads.offline.labels import request_arrays
from skewless.infra.reads.offline.matched_rows import register_tables
from skewless.infra.reads.offline.source_columns import check_columns
from skewless.infra.reads.offline.sources import Table
from skewless.infra.reads.offline.sql import quote
from skewless.infra.reads.offline.views import LogExtents, OfflineViews
from skewless.training.dataset_files import PART_BYTES, DatasetFiles, check_names

if TYPE_CHECKING:
    import duckdb

_NAME = "frame"
_RELATION = "frame_rows"
_BATCH_ROWS = 10_000  # as Spark's own batches: a JVM holds one at a time


@dataclass(frozen=True, kw_only=True)
class FrameTable(Table):
    """Rows in memory as a table that DuckDB reads."""

    files: tuple[str, ...] = ()
    rows: pa.Table

    @property
    def relation(self) -> str:
        """Return the SQL after FROM."""
        return quote(_RELATION)

    @property
    def parameters(self) -> list[object]:
        """Return no parameters."""
        return []

    @contextmanager
    def open(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Make the rows readable on a connection within the block."""
        with register_tables(connection, {_RELATION: self.rows}):
            yield


@dataclass(frozen=True, kw_only=True)
class FrameJoin:
    """The features of a service as of one time, for rows of any frame: what ``skewless dataset`` adds to a file.

    It holds no data and can be pickled. A process that uses it needs the project's database and storage.

    Args:
        plan: plan of the service.
        time_column: column of the prediction time.
        extents: the extents of the logs that count.
        memory_limit: of DuckDB, per process.
        threads: of DuckDB, per process.
    """

    state: ProjectState
    plan: FeaturePlan
    time_column: str
    mode: TimeMode
    extents: LogExtents
    memory_limit: str
    threads: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The key columns whose buckets the frame is split by: of the windowed views if there are any.

        They read the most. Views with other keys are read for the entities that a part of the frame has.
        """
        return tuple(column.name for column in self._key_columns)

    @cached_property
    def features(self) -> pa.Schema:
        """The columns that the join adds, with their types; times are int64 microseconds.

        Raises:
            DefinitionError: a transform fails.
        """
        refs = self.plan.services[0].features
        views = {view.name: empty_read(view, 1, available=True) for view in self.plan.all_views}
        types = {ref.label: arrow_type(self.plan.dtype(ref)) for ref in refs}
        if any(ref.group not in views for ref in refs):
            # A transform may return another type than the declared one, but not for some rows only.
            fields = pa.table({field.name: pa.nulls(1, arrow_type(field.dtype)) for field in self.plan.request})
            request = request_arrays(self.plan.request, fields)
            arrays = Assembler(self.plan, {}).assemble_columns(np.zeros(1, np.int64), views, request)
            types |= {
                ref.label: pa.from_numpy_dtype(arrays[ref.label].dtype)
                for ref in refs
                if ref.group not in views and arrays[ref.label].dtype != np.object_
            }
        return pa.schema(list(types.items()))

    def find_partitions(self, keys: Sequence[pa.Array | pa.ChunkedArray], count: int) -> pa.Array:
        """Return the part of each row, int32: a range of the buckets of its entity; null keys are in all parts.

        Args:
            keys: the columns of ``keys``.
            count: number of parts.
        """
        # Unsafe: a key that its type cannot hold finds no row, wherever it is.
        typed = [
            array.cast(arrow_type(column.dtype), safe=False)
            for array, column in zip(keys, self._key_columns, strict=True)
        ]
        parts = find_buckets(typed, self.plan.buckets) * count // self.plan.buckets
        has_null = np.logical_or.reduce([find_nulls(array) for array in typed])
        return pa.array(np.where(has_null, np.arange(len(parts)) % count, parts).astype(np.int32))

    def check(self, schema: pa.Schema) -> None:
        """Check that a frame with these columns can get the features.

        Raises:
            SourceError: a column is missing, is of another type, or has the name of a feature.
        """
        check_names(_NAME, schema.names, self.features.names)
        with self._connect() as connection:
            self._read(connection, schema.empty_table())

    def add(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order with the features behind their own columns, which are not changed.

        Memory: about four times ``PART_BYTES``, and DuckDB's limit.

        Raises:
            SourceError: a row has no time, or no value of a field that a request must have.
        """
        for rows in _gather(batches, PART_BYTES):
            with self._connect() as connection:
                file = self._read(connection, rows)
                views = OfflineViews(self.state, connection)
                files = DatasetFiles(connection=connection, views=views, plan=self.plan, entities=file, mode=self.mode)
                file.count()
                for part in file.read(max(1, rows.num_rows)):
                    joined = files.join(part, self.extents)
                    added = [joined[field.name].cast(field.type) for field in self.features]
                    schema = pa.schema([*rows.schema, *self.features])
                    yield from pa.table([*rows.columns, *added], schema=schema).to_batches(_BATCH_ROWS)

    def _read(self, connection: duckdb.DuckDBPyConnection, rows: pa.Table) -> EntityFile:
        required = required_columns(self.plan, self.time_column)
        # Only these columns, so that others may have types that DuckDB does not know.
        table = FrameTable(name=_NAME, rows=rows.select([name for name in required if name in rows.column_names]))
        file = EntityFile(table=table, plan=self.plan, time_column=self.time_column, connection=connection)
        check_columns(_NAME, file.types, required)
        return file

    @property
    def _key_columns(self) -> tuple[Column, ...]:
        views: list[View | WindowView] = [*self.plan.windows, *self.plan.views]
        return views[0].keys if views else (Column(name=self.time_column, dtype=DType.TIMESTAMP),)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        return connect(spill_folder(self.state), memory_limit=self.memory_limit, threads=self.threads)


def _gather(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Yield the rows of batches in tables of about ``size`` bytes; empty batches are omitted."""
    pending: list[pa.RecordBatch] = []
    pending_bytes = 0
    for batch in batches:
        if batch.num_rows:
            pending.append(batch)
            pending_bytes += batch.nbytes
        if pending_bytes >= size:
            yield pa.Table.from_batches(pending)
            pending, pending_bytes = [], 0
    if pending:
        yield pa.Table.from_batches(pending)
