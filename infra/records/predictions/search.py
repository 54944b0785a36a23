"""Finds predictions in a log of any size by reading a bounded part of it: one by its id, and the latest ones.

A log of millions of predictions has thousands of segments. Their times and positions are in the catalog, so that most
are neither opened nor fetched from the storage.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self

import duckdb
import pyarrow as pa

from skewless.contract.columns import Column
from skewless.contract.errors import RequestError
from skewless.contract.keys import KeyValue
from skewless.contract.plain_record import PlainRecord
from skewless.infra.log.catalog import SEGMENT_FIELDS, Segment, decode_segment
from skewless.infra.log.readers import register_reader
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.ids import find_id_time
from skewless.infra.records.predictions.input_sql import json_field_sql
from skewless.infra.records.predictions.reader import PredictionEntry, PredictionLog
from skewless.infra.records.predictions.segments import PREDICTIONS, open_prediction_log

# Each process has a segment with the time of an id, or soon after it: first those of a few processes are read.
_BEYOND_ID = (4, 32)
_BEYOND = 8
_MOST_NEAR = 200
_EVERYTHING = 2**62
_FIRST_SEGMENTS = 16
_NONE = type(None)
_LIST_SQL = """
    SELECT id, t AS t_us, model, version, role, score, source, inputs
    FROM rows WHERE {} ORDER BY t_us DESC, id DESC, version DESC LIMIT $most
"""
_AFTER_SQL = "(t < $after_t OR (t = $after_t AND (id < $after_id OR (id = $after_id AND version < $after_version))))"


@dataclass(frozen=True, kw_only=True)
class PredictionSearch:
    """A prediction that was searched by its id.

    Args:
        entry: None: it was not found.
        looked: number of predictions among which it was searched, without those of its time.
        total: number of predictions in the log.
    """

    entry: PredictionEntry | None
    looked: int
    total: int


@dataclass(frozen=True, kw_only=True)
class PredictionRow(PlainRecord):
    """One prediction in a list.

    Args:
        t_us: time of evaluation, UTC microseconds.
        inputs: of the caller, JSON text.
    """

    id: str
    t_us: int
    model: str
    version: str
    role: str
    score: float
    source: str
    inputs: str


@dataclass(frozen=True, kw_only=True)
class PredictionList(PlainRecord):
    """Predictions, the latest first.

    Args:
        looked: number of predictions among which they were searched.
        since_us: time of the first of those; None: the log is empty.
        total: number of predictions in the log.
        next_page: where the next page continues; None: there is none.
    """

    rows: list[PredictionRow]
    looked: int
    since_us: int | None
    total: int
    next_page: str | None


def find_prediction(
    state: ProjectState,
    connection: duckdb.DuckDBPyConnection,
    prediction: str,
    *,
    most_rows: int | None = None,
    most_segments: int | None = None,
) -> PredictionSearch:
    """Return a prediction by its id, as it was served.

    An id has its time, so that a few segments near it are read. If they do not have it, the log is searched.

    Args:
        most_rows, most_segments: how much of the log is searched then, the latest part of it; None: all.

    Raises:
        StoreError: the database or the storage is unavailable, or a file is corrupt.
    """
    log = open_prediction_log(state)
    total, times = log.catalog.count_rows(PREDICTIONS), find_id_time(prediction)
    if times is not None:
        for beyond in _BEYOND_ID:
            near = find_near(state.database, times.start, times.start, beyond=beyond)
            entry = _open(state, connection, near).find(prediction)
            if entry is not None:
                return PredictionSearch(entry=entry, looked=0, total=total)
    most = _EVERYTHING if most_rows is None else most_rows
    segments = latest_segments(state.database, most_rows=most, most=most_segments or 2**31)
    entry = _open(state, connection, segments).find(prediction)
    return PredictionSearch(entry=entry, looked=_count(segments), total=total)


def find_near(
    database: Database, since_us: int, until_us: int, *, beyond: int = _BEYOND, most: int = _MOST_NEAR
) -> list[Segment]:
    """Return the segments that probably have the predictions of a time range, in no order.

    A segment has the time of one of its last rows. So the range is in segments with a time in it, and in the first ones
    after it. Writers add segments late while the database is down, so that rows may also be elsewhere.

    Args:
        since_us, until_us: the range, UTC microseconds, both included.
        beyond: number of further segments before the range, and after it.
        most: number of segments in the range.
    """
    columns = f"SELECT {SEGMENT_FIELDS} FROM segments WHERE partition = ?"
    between = f"{columns} AND at_us >= ? AND at_us <= ? ORDER BY at_us LIMIT ?"
    rows = [
        *database.query(f"{columns} AND at_us < ? ORDER BY at_us DESC LIMIT ?", PREDICTIONS, since_us, beyond),
        *database.query(between, PREDICTIONS, since_us, until_us, most),
        *database.query(f"{columns} AND at_us > ? ORDER BY at_us LIMIT ?", PREDICTIONS, until_us, beyond),
    ]
    return list(map(decode_segment, rows))


def latest_segments(database: Database, *, most_rows: int, most: int, end: int | None = None) -> list[Segment]:
    """Return the last segments of the log, the last one first; at least one, if there is one.

    Args:
        most_rows: of all of them, unless the first has more.
        most: number of segments.
        end: only segments that begin before this position; None: all.
    """
    sql = f"SELECT {SEGMENT_FIELDS} FROM segments WHERE partition = ? AND first_seq < ? ORDER BY first_seq DESC LIMIT ?"
    segments: list[Segment] = []
    for segment in map(decode_segment, database.query(sql, PREDICTIONS, _EVERYTHING if end is None else end, most)):
        if segments and _count(segments) + segment.rows > most_rows:
            break
        segments.append(segment)
    return segments


def read_near(
    state: ProjectState,
    connection: duckdb.DuckDBPyConnection,
    t_us: int,
    query: str,
    *,
    around_us: int = 0,
    most_rows: int | None = None,
    **values: Any,  # noqa: ANN401 - of the query
) -> pa.Table:
    """Return the result of a query on ``rows``, the predictions near a time.

    Args:
        around_us: also of this time before and after it.
        most_rows: only the segments next to the time that have about so many; None: all near it.
        values: of the query.

    Raises:
        StoreError: the database or the storage is unavailable, or a file is corrupt.
    """
    beyond = _BEYOND if most_rows is None else _MOST_NEAR // 2
    segments = find_near(state.database, t_us - around_us, t_us + around_us, beyond=beyond)
    if most_rows is not None:
        # A segment has the time of its last rows: the first one after a time is likely to have it.
        segments.sort(key=lambda segment: segment.at_us - t_us if segment.at_us >= t_us else 2 * (t_us - segment.at_us))
        rows = list(accumulate(segment.rows for segment in segments))
        segments = segments[: 1 + sum(count < most_rows for count in rows)]
    return _open(state, connection, segments).query_rows(query, values)


def list_predictions(
    state: ProjectState,
    connection: duckdb.DuckDBPyConnection,
    *,
    models: Collection[str] | None = None,
    keys: Sequence[tuple[Column, KeyValue]] = (),
    most: int = 50,
    most_rows: int = 500_000,
    most_segments: int = 320,
    page: str | None = None,
) -> PredictionList:
    """Return the latest served predictions; the latest segments are read until there are enough.

    Args:
        models: only of these models; None: all.
        keys: join keys and their values; predictions with more keys are of the entity, too.
        most: number of predictions.
        most_rows, most_segments: how much of the log is read; the last segment may have more rows.
        page: ``next_page`` of the previous list: it has other predictions, also if the log has grown.

    Raises:
        RequestError: the page is not a place in the list.
        StoreError: the database or the storage is unavailable, or a file is corrupt.
    """
    log, place = open_prediction_log(state), _Place.decode(page)
    conditions, values = _conditions(models, keys)
    if place.after is not None:
        conditions += f" AND {_AFTER_SQL}"
        values |= dict(zip(("after_t", "after_id", "after_version"), place.after, strict=True))
    rows: list[PredictionRow] = []
    read: list[Segment] = []
    chunk = _FIRST_SEGMENTS if place.first is None else most_segments
    while len(rows) <= most and len(read) < most_segments and (left := most_rows - _count(read)) > 0:
        end = read[-1].first if read else place.end
        chunk = min(chunk, most_segments - len(read))
        segments = latest_segments(state.database, most_rows=left, most=chunk, end=end)
        segments = [segment for segment in segments if segment.first >= (place.first or 0)]
        if not segments:
            break
        found = _open(state, connection, segments).query_rows(
            _LIST_SQL.format(conditions), {**values, "most": most + 1}
        )
        rows += [PredictionRow(**row) for row in found.to_pylist()]
        read += segments
        chunk *= 4
    rows = sorted(rows, key=_order, reverse=True)
    return PredictionList(
        rows=rows[:most],
        looked=_count(read),
        since_us=read[-1].at_us if read else None,
        total=log.catalog.count_rows(PREDICTIONS),
        next_page=_next_page(rows, most, read),
    )


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A place in a list: the segments of a page, and its last prediction if they have more.

    Args:
        end: position after the segments; None: the end of the log.
        first: position of their first row; None: as many as the list needs.
        after: time, id and version of the last prediction before; empty: the list begins.
    """

    end: int | None = None
    first: int | None = None
    after: tuple[int, str, str] | None = None

    @classmethod
    def decode(cls, page: str | None) -> Self:
        try:
            end, first, *after = json.loads(page) if page else (None, None)
            place = cls(end=end, first=first, after=tuple(after) or None)
            if [type(value) for value in after] in ([], [int, str, str]) and {type(end), type(first)} <= {int, _NONE}:
                return place
        except (ValueError, TypeError):
            pass
        raise RequestError("page", "is not a place in the list", value=page, fix="open the first page")


def _order(row: PredictionRow) -> tuple[int, str, str]:
    return row.t_us, row.id, row.version


def _count(segments: Sequence[Segment]) -> int:
    return sum(segment.rows for segment in segments)


def _next_page(rows: Sequence[PredictionRow], most: int, read: Sequence[Segment]) -> str | None:
    if len(rows) > most:
        return json.dumps([read[0].last + 1, read[-1].first, *_order(rows[most - 1])])
    return json.dumps([read[-1].first, None]) if read and read[-1].first else None


def _open(state: ProjectState, connection: duckdb.DuckDBPyConnection, segments: Sequence[Segment]) -> PredictionLog:
    register_reader(state.database)
    return PredictionLog(state, connection, only=[segment.stored for segment in segments])


def _conditions(models: Collection[str] | None, keys: Sequence[tuple[Column, KeyValue]]) -> tuple[str, dict[str, Any]]:
    conditions, values = ["role <> 'shadow'"], dict[str, Any]()
    if models is not None:
        conditions.append("list_contains($models, model)")
        values["models"] = sorted(models)
    if keys:
        conditions.append("source = 'entities'")
    for i, (column, value) in enumerate(keys):
        # Most rows do not have the text of the value, and are not parsed; an escape may be the same text.
        conditions.append(f"(contains(inputs, $text{i}) OR contains(inputs, '\\'))")
        conditions.append(f"{json_field_sql('inputs', column)} = $key{i}")
        values |= {f"text{i}": str(value), f"key{i}": value}
    return " AND ".join(conditions), values
