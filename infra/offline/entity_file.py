"""The entity rows that a dataset is asked for: a file of keys, times and whatever else its owner keeps there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.plan import FeaturePlan
from skewless.contract.status import Int64Array
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.labels import nullable, request_arrays, to_milliseconds
from skewless.infra.offline.source_columns import check_columns
from skewless.infra.offline.sources import Table, broken, find_table
from skewless.infra.offline.sql import cast, quote, to_microseconds

_BATCH_ROWS = 100_000
_TYPED = "__typed_"


@dataclass(frozen=True, kw_only=True)
class EntityFileRows:
    """Some rows of the file, in its order.

    Args:
        own: the file's columns as they are.
        keys: key columns in the plan's types, and ``__t``: the time floored to the millisecond, as serving does.
        request: per request field, what transforms see.
    """

    own: pa.Table
    keys: pa.Table
    request: dict[str, npt.NDArray[Any]]

    @property
    def t(self) -> Int64Array:
        """Return the times asked for, microseconds."""
        t: Int64Array = self.keys[TIME].to_numpy()
        return t

    def slice(self, first: int, count: int) -> EntityFileRows:
        """Return some of the rows."""
        return EntityFileRows(
            own=self.own.slice(first, count),
            keys=self.keys.slice(first, count),
            request={name: array[first : first + count] for name, array in self.request.items()},
        )


@dataclass(frozen=True, kw_only=True)
class EntityFile:
    """A Parquet or CSV file (folder, glob, database table) with a row for each question.

    Args:
        plan: of the one service that is asked (``FeaturePlan.select_service``).
        time_column: when each question is asked.
    """

    table: Table
    plan: FeaturePlan
    time_column: str
    connection: duckdb.DuckDBPyConnection

    @classmethod
    def find(cls, connection: duckdb.DuckDBPyConnection, path: Path, plan: FeaturePlan, time_column: str) -> EntityFile:
        """Return the file behind a path.

        Raises:
            SourceError: it is missing or broken, lacks a column, or has a column of another type.
        """
        wanted = {column.name: column.dtype for column in (*plan.join_keys, *plan.request)}
        wanted[time_column] = DType.TIMESTAMP
        table = find_table(Path.cwd(), str(path), f"entity file {str(path)!r}", wanted)
        found = cls(table=table, plan=plan, time_column=time_column, connection=connection)
        check_columns(table.name, found.types, wanted)
        return found

    @cached_property
    def types(self) -> dict[str, str]:
        """Return DuckDB's type of each column."""
        return self.table.column_types(self.connection)

    def count(self) -> int:
        """Return the number of rows.

        Raises:
            SourceError: a row lacks its time, or a field without which nothing could be asked.
        """
        needed = [column for column in self.plan.request if not nullable(column.dtype)]
        nulls = [f"count(*) - count({self._typed(column)})" for column in needed]
        query = (
            f"SELECT count(*), {', '.join([f'count(*) - count({self._moment})', *nulls])} FROM {self.table.relation}"
        )
        try:
            with self.table.opened(self.connection):
                found = self.connection.execute(query, self.table.parameters).fetchall()[0]
        except duckdb.Error as error:
            raise broken(self.table.name, error) from error
        for name, count in zip([self.time_column, *(column.name for column in needed)], found[1:], strict=True):
            if count:
                raise SourceError(
                    f"{self.table.name} column {name!r}",
                    "is null where it must not be",
                    value=f"{count} of {found[0]} rows",
                    fix="fill it, or leave these rows out",
                )
        return int(found[0])

    def read(self, rows: int) -> Iterator[EntityFileRows]:
        """Yield all rows in the order of the file, so many at a time.

        Raises:
            SourceError: the file broke while it was read.
        """
        typed = [f"{self._typed(c)} AS {quote(_TYPED + c.name)}" for c in self._columns]
        listed = ", ".join(["*", *typed, f"{self._moment} AS {TIME}"])
        # Others ask the connection between the batches.
        with self.table.opened(self.connection), self.connection.cursor() as cursor:
            cursor.execute("SET TimeZone = 'UTC'")
            try:
                reader = cursor.sql(f"SELECT {listed} FROM {self.table.relation}", params=self.table.parameters)
                for table in _gathered(reader.to_arrow_reader(_BATCH_ROWS), rows):
                    yield self._split(table)
            except duckdb.Error as error:
                raise broken(self.table.name, error) from error

    def _split(self, table: pa.Table) -> EntityFileRows:
        typed = {column.name: table[_TYPED + column.name] for column in self._columns}
        keys = {column.name: typed[column.name] for column in self.plan.join_keys}
        return EntityFileRows(
            own=table.select(list(self.types)),
            keys=pa.table({**keys, TIME: table[TIME]}),
            request=request_arrays(self.plan.request, pa.table(typed)) if typed else {},
        )

    @property
    def _columns(self) -> list[Column]:
        return list({column.name: column for column in (*self.plan.join_keys, *self.plan.request)}.values())

    def _typed(self, column: Column) -> str:
        return cast(quote(column.name), self.types[column.name], column.dtype)

    @property
    def _moment(self) -> str:
        return to_milliseconds(to_microseconds(quote(self.time_column)))


def _gathered(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Yield tables of exactly ``rows`` rows, the last one shorter."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        while count >= rows:
            table = pa.Table.from_batches(held)
            yield table.slice(0, rows)
            rest = table.slice(rows)
            held, count = rest.to_batches(), rest.num_rows
    if count:
        yield pa.Table.from_batches(held)
