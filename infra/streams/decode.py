"""From messages to log rows: decoded, typed, judged once (SEMANTICS 4.1); what cannot be accepted says why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from skewless.contract.arrow_types import arrow_type
from skewless.contract.clock import parse_time
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.contract.request import parse_field
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.window_events import EventSelector
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.log.accepted import EVENT, INGEST, RAW, REJECT
from skewless.infra.log.event_rows import EVENT_ID, SOURCE_POS, event_schema

FUTURE_US = 10_000_000
_NONE = type(None)
_PLAIN: dict[DType, frozenset[type]] = {
    DType.INT32: frozenset({int, _NONE}),
    DType.INT64: frozenset({int, _NONE}),
    DType.FLOAT32: frozenset({int, float, _NONE}),
    DType.FLOAT64: frozenset({int, float, _NONE}),
    DType.BOOL: frozenset({bool, _NONE}),
    DType.STRING: frozenset({str, _NONE}),
    DType.TIMESTAMP: frozenset({int, _NONE}),
}


@dataclass(frozen=True, kw_only=True)
class DecodedBatch:
    """The log rows that some messages make.

    Args:
        rows: accepted and rejected, in the schema of ``event_schema``.
        rejected: how many of the rows are in quarantine.
    """

    rows: pa.Table
    rejected: int


class EventValidator:
    """Says which events cannot be accepted, whatever way they came.

    Args:
        views: the views that read the source: an event that one of them could not sum exactly is refused.
    """

    def __init__(self, source: EventSource, views: Sequence[WindowView]) -> None:
        self._source = source
        self._lenses = [(view, EventSelector(view)) for view in views]

    def times(self, moments: pa.Array, reasons: dict[int, str], now_us: int) -> Int64Array:
        """Return event times, of those without one ``now_us``; note what is missing or out of range."""
        name, source = self._source.event_column, self._source
        missing = np.asarray(moments.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)
        ts: Int64Array = moments.fill_null(now_us).to_numpy(zero_copy_only=False).astype(np.int64)
        outside = (ts < source.earliest_us) | (ts >= source.latest_us)
        _note(reasons, missing, f"field {name!r} is missing")
        _note(reasons, outside, f"field {name!r} is outside the source's range")
        _note(reasons, ts > now_us + FUTURE_US, f"field {name!r} lies more than 10 s in the future")
        return ts

    def values(self, rows: pa.Table, ts: Int64Array, reasons: dict[int, str]) -> None:
        """Note events that no view can name, and those that a view could not sum."""
        if not rows.num_rows or not self._lenses:
            return
        whole = np.zeros(rows.num_rows, dtype=np.bool_)
        for view, lens in self._lenses:
            keyed = np.ones(rows.num_rows, dtype=np.bool_)
            for key in view.keys:
                keyed &= np.asarray(rows[key.name].is_valid().to_numpy(), dtype=np.bool_)
            whole |= keyed
            for column, out in lens.find_beyond(rows, ts).items():
                _note(reasons, out, f"column {column!r} is too large for view {view.name!r} to sum exactly")
        keys = sorted({key.name for view, _ in self._lenses for key in view.keys})
        _note(reasons, ~whole, f"no view's key is whole: null among the fields {', '.join(map(repr, keys))}")


class Decoder:
    """Judges the messages of one source.

    Args:
        views: the views that read the source: an event that one of them could not sum exactly is refused.
        max_bytes: longest message.
    """

    def __init__(self, source: EventSource, views: Sequence[WindowView], max_bytes: int) -> None:
        self._source = source
        self._judge = EventValidator(source, views)
        self._max_bytes = max_bytes
        self._schema = event_schema(source)
        self._moment = Column(name=source.event_column, dtype=DType.TIMESTAMP)

    def decode(self, payloads: Sequence[bytes | None], positions: Sequence[int], now_us: int) -> DecodedBatch:
        """Return the log rows of messages, one for each.

        Args:
            positions: of the messages in the stream.
            now_us: when they were taken.
        """
        reasons: dict[int, str] = {}
        objects = [self._object(i, payload, reasons) for i, payload in enumerate(payloads)]
        columns: dict[str, pa.Array] = {}
        for column in self._source.columns:
            columns[column.name] = self._typed(column, objects, reasons)
        ts = self._judge.times(self._typed(self._moment, objects, reasons), reasons, now_us)
        ids = self._ids(columns)
        self._judge.values(pa.table(columns), ts, reasons)
        n = len(payloads)
        columns |= {
            EVENT: pa.array(ts),
            INGEST: pa.array(np.full(n, now_us, dtype=np.int64)),
            SOURCE_POS: pa.array(positions, pa.int64()),
            EVENT_ID: pa.array(ids or [None] * n, pa.string()),
            REJECT: pa.array([reasons.get(i) for i in range(n)] if reasons else pa.nulls(n), pa.string()),
            RAW: pa.array(
                [self._raw(payloads[i]) if i in reasons else None for i in range(n)] if reasons else pa.nulls(n),
                pa.binary(),
            ),
        }
        rows = pa.table([columns[field.name] for field in self._schema], schema=self._schema)
        return DecodedBatch(rows=rows, rejected=len(reasons))

    def _raw(self, payload: bytes | None) -> bytes | None:
        """Return what came; of a message that is too long, the beginning: its reason says how long it was."""
        return None if payload is None else payload[: self._max_bytes]

    def _object(self, i: int, payload: bytes | None, reasons: dict[int, str]) -> dict[str, Any]:
        if payload is None:
            reasons[i] = "the message has no body"
        elif len(payload) > self._max_bytes:
            reasons[i] = f"the message has {len(payload)} bytes, more than {self._max_bytes}"
        else:
            found = _loaded(payload)
            if isinstance(found, dict):
                return found
            reasons[i] = "the message is not a JSON object"
        return {}

    def _typed(self, column: Column, objects: Sequence[dict[str, Any]], reasons: dict[int, str]) -> pa.Array:
        name = column.name
        array, problems = typed(column, [item.get(name) for item in objects])
        for i, problem in problems.items():
            reasons.setdefault(i, problem)
        return array

    def _ids(self, columns: dict[str, pa.Array]) -> list[str | None]:
        if self._source.id_column is None:
            return []
        return [None if value is None else str(value) for value in columns[self._source.id_column].to_pylist()]


def _note(reasons: dict[int, str], where: BoolArray, reason: str) -> None:
    for i in np.flatnonzero(where).tolist():
        reasons.setdefault(i, reason)


def _loaded(payload: bytes) -> object:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(payload)  # Python's own writer sends NaN, which is no JSON
    except (ValueError, RecursionError):
        return None


def typed(column: Column, values: Sequence[Any]) -> tuple[pa.Array, dict[int, str]]:
    """Return values as the column's type, and for those that do not fit why; those are null.

    Null is a value like any other; integers may come as digits, times as ISO 8601 text (without a zone: UTC).
    """
    kind = arrow_type(column.dtype)
    if set(map(type, values)) <= _PLAIN.get(column.dtype, frozenset()):
        try:
            return pa.array(values, kind), {}
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            pass  # some number is out of range, or some text is no Unicode: each is looked at
    if column.dtype is DType.TIMESTAMP:
        moments = _moments(values)
        if moments is not None:
            return moments, {}
    parsed: list[Any] = []
    problems: dict[int, str] = {}
    for i, value in enumerate(values):
        try:
            parsed.append(_parsed(column, value))
        except RequestError as error:
            parsed.append(None)
            problems[i] = f"{error.thing} {error.problem}"
    return pa.array(parsed, kind), problems


def _parsed(column: Column, value: Any) -> Any:  # noqa: ANN401 - JSON values
    if value is None:
        return None
    if column.dtype in {DType.FLOAT32, DType.FLOAT64} and type(value) is float:
        return value  # NaN and infinities too
    if column.dtype is DType.TIMESTAMP and isinstance(value, str):
        return _moment(column, value)
    parsed = parse_field(column, value)
    return parsed.item() if isinstance(parsed, np.generic) else parsed


def _moments(values: Sequence[Any]) -> pa.Array | None:
    """Return ISO 8601 texts with a zone as microseconds, or None if they are not all of that kind."""
    if not set(map(type, values)) <= {str, _NONE}:
        return None
    try:
        return pa.array(values, pa.string()).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    except pa.ArrowException:
        return None


def _moment(column: Column, value: str) -> int:
    found = parse_time(value)
    if found is None:
        fix = "send an ISO 8601 time, or microseconds since the epoch"
        raise RequestError(f"field {column.name!r}", "is not a valid timestamp", value=value, fix=fix)
    return found[0]
