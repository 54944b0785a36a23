"""Read the label table of a model: keys, request fields, times and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.arrow_numbers import find_nulls
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.labels import LabelSource, Outcomes
from skewless.contract.plan import FeaturePlan
from skewless.contract.request import is_nullable
from skewless.contract.spec import ModelSpec
from skewless.infra.reads.offline import arrays
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.source_columns import check_columns
from skewless.infra.reads.offline.sources import Table, find_table
from skewless.infra.reads.offline.sql import cast_sql, quote, to_microseconds

LABEL = "__label"
KNOWN = "__known_us"
WEIGHT = "__weight"
PREDICTION = "__prediction"
_OTHER = "__other_"
_MILLISECOND = 1_000
_BATCH_ROWS = 250_000


@dataclass(frozen=True, kw_only=True)
class OutcomeTable(LabelSource):
    """Label rows that were written from outcomes.

    Args:
        prediction: column with the id of the prediction of a row; null: it is a row of a label table.
    """

    prediction: str


def label_source(spec: ModelSpec) -> LabelSource:
    """Return the label table of a model; outcomes must have been written to one (``resolve_labels``)."""
    if isinstance(spec.labels, Outcomes):
        raise TypeError(spec.labels)
    return spec.labels


def table_spec(spec: ModelSpec) -> ModelSpec | None:
    """Return the spec with its label table alone; None: its labels are outcomes without a table."""
    if not isinstance(spec.labels, Outcomes):
        return spec
    return None if spec.labels.table is None else replace(spec, labels=spec.labels.table)


def label_columns(plan: FeaturePlan, spec: ModelSpec) -> dict[str, DType]:
    """Return the columns that a label table must have, with their types."""
    columns = {label_source(spec).column(column.name): column.dtype for column in (*plan.join_keys, *plan.request)}
    return columns | label_field_columns(spec)


def label_field_columns(spec: ModelSpec) -> dict[str, DType]:
    """Return the columns of a label table that are neither keys nor request fields, with their types."""
    labels = label_source(spec)
    columns = {labels.event_time: DType.TIMESTAMP, labels.known_time: DType.TIMESTAMP, labels.label: DType.FLOAT64}
    return columns | ({labels.weight: DType.FLOAT64} if labels.weight else {})


def find_labels(repo: Path, spec: ModelSpec, plan: FeaturePlan | None = None) -> Table:
    """Return the files of a model's label table; with a plan, untyped keys and fields get the plan's types."""
    declared = label_field_columns(spec) if plan is None else label_columns(plan, spec)
    return find_table(repo, label_source(spec).path, f"label table of model {spec.name!r}", declared)


def read_labels(
    connection: duckdb.DuckDBPyConnection,
    repo: Path,
    plan: FeaturePlan,
    spec: ModelSpec,
    *,
    between: tuple[int, int] | None = None,
) -> pa.Table:
    """Return the rows of a model's label table, ordered by prediction time.

    Args:
        between: earliest and latest ``__t`` of the rows to read; None: all rows.

    Returns:
        Key and request columns in the plan's types (times as int64 microseconds), ``__t``
        (event time minus horizon, floored to the millisecond as serving does), ``__label``,
        ``__known_us`` (null: never known) and ``__weight``; of an OutcomeTable also ``__prediction``.

    Raises:
        SourceError: the table is missing or corrupt, or has no such column.
    """
    return query_labels(connection, repo, plan, spec, _ordered_sql(plan, spec, between))


def stream_labels(
    connection: duckdb.DuckDBPyConnection,
    repo: Path,
    plan: FeaturePlan,
    spec: ModelSpec,
    *,
    between: tuple[int, int] | None = None,
    other: FeaturePlan | None = None,
) -> Iterator[pa.Table]:
    """Yield the rows of ``read_labels``, some at a time; DuckDB sorts them on disk beyond its memory limit.

    The connection can be used between two tables. The order does not depend on ``other``: rows of equal order are equal
    in all columns of the plan.

    Args:
        between: as of ``read_labels``.
        other: a second plan, whose keys and request fields are read, too; ``select_columns`` selects them.

    Raises:
        SourceError: the table is missing or corrupt, or has no such column.
    """
    table, sql = _labels_sql(connection, repo, plan, spec, other)
    with connection.cursor() as cursor, table.reading(cursor):
        cursor.execute("SET TimeZone = 'UTC'")
        query = f"WITH labels AS ({sql}) {_ordered_sql(plan, spec, between)}"
        for batch in cursor.sql(query, params=table.parameters).to_arrow_reader(_BATCH_ROWS):
            yield pa.Table.from_batches([batch])


def _ordered_sql(plan: FeaturePlan, spec: ModelSpec, between: tuple[int, int] | None) -> str:
    last = [PREDICTION] if isinstance(spec.labels, OutcomeTable) else []
    columns = [*(quote(column.name) for column in (*plan.join_keys, *plan.request)), LABEL, WEIGHT, *last]
    order = ", ".join([TIME, KNOWN, *columns])
    times = "" if between is None else f" WHERE {TIME} BETWEEN {between[0]:d} AND {between[1]:d}"
    return f"SELECT * FROM labels{times} ORDER BY {order}"


def select_columns(plan: FeaturePlan, rows: pa.Table) -> pa.Table:
    """Return rows that were read with ``other=plan`` in the columns of that plan."""
    own = {f"{_OTHER}{column.name}": column.name for column in (*plan.join_keys, *plan.request)}
    chosen = rows.select([*own, TIME, LABEL, KNOWN, WEIGHT])
    return chosen.rename_columns([own.get(name, name) for name in chosen.column_names])


def query_labels(
    connection: duckdb.DuckDBPyConnection, repo: Path, plan: FeaturePlan, spec: ModelSpec, query: str
) -> pa.Table:
    """Return the result of a SQL query on ``labels``, a table with the columns of ``read_labels``.

    Raises:
        SourceError: the table is missing or corrupt, or has no such column.
    """
    table, sql = _labels_sql(connection, repo, plan, spec, None)
    with table.reading(connection):
        return connection.sql(f"WITH labels AS ({sql}) {query}", params=table.parameters).to_arrow_table()


def _labels_sql(
    connection: duckdb.DuckDBPyConnection, repo: Path, plan: FeaturePlan, spec: ModelSpec, other: FeaturePlan | None
) -> tuple[Table, str]:
    """Return the label table, and the query of its rows in the columns of ``read_labels``."""
    table = find_labels(repo, spec, plan)
    if other is not None:
        table = replace(table, declared={**label_columns(other, spec), **table.declared})
    types = table.column_types(connection)
    labels = label_source(spec)
    fields = []
    for prefix, each in (("", plan), (_OTHER, other)):
        if each is None:
            continue
        check_columns(table.name, types, label_columns(each, spec))
        fields += [
            f"{cast_sql(quote(name), types[name], c.dtype)} AS {quote(prefix + c.name)}"
            for c in (*each.join_keys, *each.request)
            for name in [labels.column(c.name)]
        ]
    horizon = spec.as_dict()["horizon"]
    prediction_time = f"{to_microseconds(quote(labels.event_time))} - {horizon}"
    # Floor after the horizon is subtracted: serving floors the time of the prediction, not that of the event.
    floored = to_milliseconds(prediction_time)
    weight = quote(labels.weight) if labels.weight else "1.0"
    prediction = f", {quote(labels.prediction)} AS {PREDICTION}" if isinstance(labels, OutcomeTable) else ""
    # A label must be a finite number. Not isnan: DuckDB evaluates it with Parquet's statistics, which ignore NaN.
    number = f"CAST({quote(labels.label)} AS DOUBLE)"
    label = f"CASE WHEN isfinite({number}) THEN {number} END"
    return table, (
        f"SELECT {', '.join(fields)}, {floored} AS {TIME}, {label} AS {LABEL},"
        f" {to_microseconds(quote(labels.known_time))} AS {KNOWN}, CAST({weight} AS DOUBLE) AS {WEIGHT}"
        f"{prediction} FROM {table.relation}"
    )


def to_milliseconds(time_sql: str) -> str:
    """Return int64 microseconds floored to the millisecond, as serving floors its clock (SEMANTICS 1.2).

    >>> to_milliseconds("t")
    '(t) - (((t) % 1000) + 1000) % 1000'
    """
    # The floor of Python, also before 1970: DuckDB's // truncates.
    return f"({time_sql}) - ((({time_sql}) % {_MILLISECOND}) + {_MILLISECOND}) % {_MILLISECOND}"


def find_servable(fields: Sequence[Column], rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows serving would accept: only float and text fields of a request may be null."""
    servable = ~find_nulls(rows[TIME])
    for column in fields:
        if not is_nullable(column.dtype):
            servable &= ~find_nulls(rows[column.name])
    return servable


def request_arrays(fields: Sequence[Column], rows: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """Return the request fields as arrays for transforms: float64 with NaN, int64, bool or objects."""
    return {column.name: _request_array(rows[column.name], column.dtype) for column in fields}


def _request_array(column: pa.ChunkedArray, dtype: DType) -> npt.NDArray[Any]:
    if dtype.is_text or dtype is DType.BOOL:
        return arrays.to_numpy(column, dtype)
    if is_nullable(dtype):
        # Round a float32 field to float32 first, as serving does.
        exact = arrays.to_numpy(column, dtype).astype(np.float64)
        return np.where(find_nulls(column), np.nan, exact)
    return arrays.to_int64(column, 0)


def entity_rows(plan: FeaturePlan, rows: pa.Table) -> pa.Table:
    """Return the columns for the point-in-time join: keys and ``__t``."""
    return rows.select([*(column.name for column in plan.join_keys), TIME])


def find_known_labels(rows: pa.Table, now_us: int) -> npt.NDArray[np.bool_]:
    """Return which rows had a label that was known at a time."""
    # A label without a known time gives null, and is not known: it must not train a model before it has matured.
    known = pc.and_(pc.less_equal(rows[KNOWN], now_us), pc.is_valid(rows[LABEL]))
    return np.asarray(pc.fill_null(known, False).to_numpy(zero_copy_only=False), dtype=np.bool_)  # noqa: FBT003 - Arrow's own signature
