"""Read an entity file: a table with keys, times, request fields and any other columns, for a training set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import duckdb
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.plan import FeaturePlan
from skewless.contract.request import is_nullable
from skewless.contract.status import Int64Array
from skewless.infra.log.reading import regroup
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.labels import request_arrays, to_milliseconds
from skewless.infra.reads.offline.source_columns import check_columns
from skewless.infra.reads.offline.sources import Table, find_table
from skewless.infra.reads.offline.sql import cast_sql, quote, to_microseconds

_BATCH_ROWS = 100_000
_TYPED = "__typed_"


@dataclass(frozen=True, kw_only=True)
class EntityFileRows:
    """Some rows of the file, in its order.

    Args:
        own: the file's columns, unchanged.
        keys: key columns in the plan's types, and ``__t``: the time floored to the millisecond, as serving does.
        request: per request field, its array for transforms.
    """

    own: pa.Table
    keys: pa.Table
    request: dict[str, npt.NDArray[Any]]

    @property
    def t(self) -> Int64Array:
        """Return the times of the rows, microseconds."""
        t: Int64Array = self.keys[TIME].to_numpy()
        return t

    def slice(self, first: int, count: int) -> EntityFileRows:
        """Return some of the rows."""
        return EntityFileRows(
            own=self.own.slice(first, count),
            keys=self.keys.slice(first, count),
            request={name: array[first : first + count] for name, array in self.request.items()},
        )


class EntitySource(Protocol):
    """Rows with an entity and a time, in a fixed order, of which datasets are made."""

    @property
    def time_column(self) -> str:
        """Return the name of the column of their time."""
        ...

    @property
    def name(self) -> str:
        """Return the name of the rows in errors."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns that a dataset repeats."""
        ...

    @property
    def width(self) -> int:
        """Return the number of columns of a row that is read."""
        ...

    def fingerprint(self) -> str:
        """Return a hash that changes with the rows."""
        ...

    def count(self) -> int:
        """Check all rows, and return their number.

        Raises:
            SourceError: a row has no time, or no value of a field that a request must have.
        """
        ...

    def read(self, rows: int) -> Iterator[EntityFileRows]:
        """Yield all rows in order, exactly ``rows`` at a time.

        Raises:
            SourceError, StoreError: they cannot be read.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class EntityFile:
    """A Parquet or CSV file (folder, glob, database table) with one entity and time per row.

    Args:
        plan: the part of the plan for one service (``FeaturePlan.select_service``).
        time_column: column with the prediction time.
    """

    table: Table
    plan: FeaturePlan
    time_column: str
    connection: duckdb.DuckDBPyConnection

    @classmethod
    def find(cls, connection: duckdb.DuckDBPyConnection, path: Path, plan: FeaturePlan, time_column: str) -> EntityFile:
        """Return the entity file at a path.

        Raises:
            SourceError: the file is missing or corrupt, has no such column, or a column has another type.
        """
        required = required_columns(plan, time_column)
        table = find_table(Path.cwd(), str(path), f"entity file {str(path)!r}", required)
        file = cls(table=table, plan=plan, time_column=time_column, connection=connection)
        check_columns(table.name, file.types, required)
        return file

    @property
    def name(self) -> str:
        """Return the name of the file in errors."""
        return self.table.name

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the file's columns."""
        return tuple(self.types)

    @property
    def width(self) -> int:
        """Return the number of the file's columns."""
        return len(self.types)

    def fingerprint(self) -> str:
        """Return a hash of the file's paths, sizes and modification times."""
        return self.table.fingerprint()

    @cached_property
    def types(self) -> dict[str, str]:
        """Return DuckDB's type of each column."""
        return self.table.column_types(self.connection)

    def count(self) -> int:
        """Return the number of rows.

        Raises:
            SourceError: a row has no time, or no value of a field that a request must have.
        """
        # Serving rejects a request with such a null, so a training row must not have one either.
        required = [column for column in self.plan.request if not is_nullable(column.dtype)]
        nulls = [f"count(*) - count({self._typed(column)})" for column in required]
        query = (
            f"SELECT count(*), {', '.join([f'count(*) - count({self._time_sql})', *nulls])} FROM {self.table.relation}"
        )
        with self.table.reading(self.connection):
            row = self.connection.execute(query, self.table.parameters).fetchall()[0]
        for name, count in zip([self.time_column, *(column.name for column in required)], row[1:], strict=True):
            if count:
                raise SourceError(
                    f"{self.table.name} column {name!r}",
                    "has null values",
                    value=f"{count} of {row[0]} rows",
                    fix="fill in the values, or remove these rows",
                )
        return int(row[0])

    def read(self, rows: int) -> Iterator[EntityFileRows]:
        """Yield all rows in the order of the file, ``rows`` at a time.

        Raises:
            SourceError: the file cannot be read.
        """
        typed = [f"{self._typed(c)} AS {quote(_TYPED + c.name)}" for c in self._columns]
        listed = ", ".join(["*", *typed, f"{self._time_sql} AS {TIME}"])
        # The caller uses the connection between two batches, so the read has its own cursor.
        with self.connection.cursor() as cursor, self.table.reading(cursor):
            cursor.execute("SET TimeZone = 'UTC'")
            reader = cursor.sql(f"SELECT {listed} FROM {self.table.relation}", params=self.table.parameters)
            # In exact pieces: a dataset's parts must not depend on the batches in which DuckDB yields rows.
            for table in regroup(reader.to_arrow_reader(_BATCH_ROWS), rows):
                yield self._split(table)

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
        return cast_sql(quote(column.name), self.types[column.name], column.dtype)

    @property
    def _time_sql(self) -> str:
        return to_milliseconds(to_microseconds(quote(self.time_column)))


def required_columns(plan: FeaturePlan, time_column: str) -> dict[str, DType]:
    """Return the columns that entity rows must have, with their types: keys, request fields and the time."""
    columns = {column.name: column.dtype for column in (*plan.join_keys, *plan.request)}
    return columns | {time_column: DType.TIMESTAMP}
