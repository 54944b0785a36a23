"""Decodes and validates messages into log rows (SEMANTICS 4.1); a rejected row has the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
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
from skewless.infra.log.log_columns import EVENT, EVENT_ID, INGEST, RAW, REJECT, SOURCE_POS, event_schema
from skewless.infra.platform.formats.codec import EventReader, PayloadError
from skewless.infra.platform.formats.json_event import load_event

FUTURE_US = 10_000_000
_NONE = type(None)
# Arrow converts a column of exactly these types at once; others are parsed value by value.
_EXACT_TYPES: dict[DType, frozenset[type]] = {
    DType.INT32: frozenset({int, _NONE}),
    DType.INT64: frozenset({int, _NONE}),
    DType.FLOAT32: frozenset({int, float, _NONE}),
    DType.FLOAT64: frozenset({int, float, _NONE}),
    DType.BOOL: frozenset({bool, _NONE}),
    DType.STRING: frozenset({str, _NONE}),
    DType.TIMESTAMP: frozenset({int, _NONE}),
}


class EventValidator:
    """Validates events from streams and from imported files.

    Args:
        source: of the events.
        views: the views that read the source; an event that one of them cannot sum exactly is rejected.
    """

    def __init__(self, source: EventSource, views: Sequence[WindowView]) -> None:
        self._source = source
        self._lenses = [(view, EventSelector(view)) for view in views]
        self._schema = event_schema(source)

    def build_rows(
        self,
        columns: Mapping[str, pa.Array],
        times: pa.Array,
        positions: Sequence[int] | Int64Array,
        now_us: int,
        reasons: dict[int, str] | None = None,
        payloads: Callable[[int], bytes | None] = lambda _row: None,
    ) -> pa.Table:
        """Return the log rows of events, accepted and rejected, in the schema of ``event_schema``.

        Args:
            columns: the columns of the source.
            times: event times, int64 microseconds; null: missing.
            positions: of the events in the stream or file.
            now_us: time of arrival.
            reasons: by row, why an event is rejected already.
            payloads: returns the message of a rejected row.
        """
        n, rows, reasons = len(times), pa.table(dict(columns)), reasons or {}
        ts = self._check_times(times, reasons, now_us)
        self._check_values(rows, ts, reasons)
        id_column = self._source.id_column
        texts = [reasons.get(i) for i in range(n)] if reasons else pa.nulls(n)
        raw = [payloads(i) if i in reasons else None for i in range(n)] if reasons else pa.nulls(n)
        added = {
            EVENT: pa.array(ts),
            INGEST: pa.array(np.full(n, now_us, dtype=np.int64)),
            SOURCE_POS: pa.array(positions, pa.int64()),
            EVENT_ID: pa.nulls(n, pa.string()) if id_column is None else columns[id_column].cast(pa.string()),
            REJECT: pa.array(texts, pa.string()),
            RAW: pa.array(raw, pa.binary()),
        }
        return pa.table([{**columns, **added}[field.name] for field in self._schema], schema=self._schema)

    def _check_times(self, times_array: pa.Array, reasons: dict[int, str], now_us: int) -> Int64Array:
        """Return event times, ``now_us`` where missing; add reasons for missing times and times out of range."""
        name, source = self._source.event_column, self._source
        is_missing = np.asarray(times_array.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)
        ts: Int64Array = times_array.fill_null(now_us).to_numpy(zero_copy_only=False).astype(np.int64)
        is_out_of_range = (ts < source.earliest_us) | (ts >= source.latest_us)
        _add_reasons(reasons, is_missing, f"field {name!r} is missing")
        _add_reasons(reasons, is_out_of_range, f"field {name!r} is outside the source's range")
        _add_reasons(reasons, ts > now_us + FUTURE_US, f"field {name!r} is more than 10 s in the future")
        return ts

    def _check_values(self, rows: pa.Table, ts: Int64Array, reasons: dict[int, str]) -> None:
        """Add reasons for events without a complete key of any view, and for events that a view cannot sum."""
        if not rows.num_rows or not self._lenses:
            return
        has_key = np.zeros(rows.num_rows, dtype=np.bool_)
        for view, lens in self._lenses:
            key_is_valid = np.ones(rows.num_rows, dtype=np.bool_)
            for key in view.keys:
                key_is_valid &= np.asarray(rows[key.name].is_valid().to_numpy(), dtype=np.bool_)
            has_key |= key_is_valid
            for column, is_too_large in lens.find_beyond(rows, ts).items():
                _add_reasons(
                    reasons, is_too_large, f"column {column!r} is too large for view {view.name!r} to sum exactly"
                )
        keys = sorted({key.name for view, _ in self._lenses for key in view.keys})
        _add_reasons(
            reasons, ~has_key, f"no view has a complete key: null among the fields {', '.join(map(repr, keys))}"
        )


class Decoder:
    """Decodes the messages of one source.

    Args:
        source: of the events.
        views: the views that read the source; an event that one of them cannot sum exactly is rejected.
        max_bytes: maximum size of a message.
        reader: reads the messages of a source in another format; None: they are JSON.
    """

    def __init__(
        self, source: EventSource, views: Sequence[WindowView], max_bytes: int, reader: EventReader | None = None
    ) -> None:
        self._source = source
        self._read = load_event if reader is None else reader.read
        self._validator = EventValidator(source, views)
        self._max_bytes = max_bytes
        self._parse_time = Column(name=source.event_column, dtype=DType.TIMESTAMP)

    def decode(self, payloads: Sequence[bytes | None], positions: Sequence[int], now_us: int) -> pa.Table:
        """Return one log row for each message, in the schema of ``event_schema``.

        Args:
            payloads: the messages.
            positions: their positions in the stream.
            now_us: when they were read.

        Raises:
            StoreError: the schema registry is unavailable, so that it is unknown whether a message can be read.
        """
        reasons: dict[int, str] = {}
        objects = [self._parse_message(i, payload, reasons) for i, payload in enumerate(payloads)]
        columns = {column.name: self._convert_column(column, objects, reasons) for column in self._source.columns}
        times = self._convert_column(self._parse_time, objects, reasons)

        def truncate(i: int) -> bytes | None:
            # Of a message that is too long, the beginning: its reason states its length.
            payload = payloads[i]
            return None if payload is None else payload[: self._max_bytes]

        return self._validator.build_rows(columns, times, positions, now_us, reasons, truncate)

    def _parse_message(self, i: int, payload: bytes | None, reasons: dict[int, str]) -> dict[str, Any]:
        if payload is None:
            reasons[i] = "the message has no body"
        elif len(payload) > self._max_bytes:
            reasons[i] = f"the message has {len(payload)} bytes, more than event_bytes ({self._max_bytes})"
        else:
            try:
                return self._read(payload)
            except PayloadError as error:
                reasons[i] = str(error)
        return {}

    def _convert_column(self, column: Column, objects: Sequence[dict[str, Any]], reasons: dict[int, str]) -> pa.Array:
        name = column.name
        array, problems = convert_values(column, [item.get(name) for item in objects])
        for i, problem in problems.items():
            reasons.setdefault(i, problem)
        return array


def _add_reasons(reasons: dict[int, str], where: BoolArray, reason: str) -> None:
    for i in np.flatnonzero(where).tolist():
        # The first problem of a message stays: a message that is not an object also lacks all fields.
        reasons.setdefault(i, reason)


def convert_values(column: Column, values: Sequence[Any]) -> tuple[pa.Array, dict[int, str]]:
    """Return values in the column's type, and the problem of each value that does not fit; such values become null.

    Null is always valid. Integers may come as digits, times as ISO 8601 text (without a zone: UTC).
    """
    kind = arrow_type(column.dtype)
    if set(map(type, values)) <= _EXACT_TYPES.get(column.dtype, frozenset()):
        try:
            return pa.array(values, kind), {}
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            pass  # a number is out of range or a text is not Unicode, so each value is parsed
    if column.dtype is DType.TIMESTAMP:
        times_array = _parse_times(values)
        if times_array is not None:
            return times_array, {}
    parsed: list[Any] = []
    problems: dict[int, str] = {}
    for i, value in enumerate(values):
        try:
            parsed.append(_parse_value(column, value))
        except RequestError as error:
            parsed.append(None)
            problems[i] = f"{error.thing} {error.problem}"
    return pa.array(parsed, kind), problems


def _parse_value(column: Column, value: Any) -> Any:  # noqa: ANN401 - JSON values
    if value is None:
        return None
    if column.dtype in {DType.FLOAT32, DType.FLOAT64} and type(value) is float:
        return value  # also NaN and infinities
    if column.dtype is DType.TIMESTAMP and isinstance(value, str):
        return _parse_time(column, value)
    parsed = parse_field(column, value)
    return parsed.item() if isinstance(parsed, np.generic) else parsed


def _parse_times(values: Sequence[Any]) -> pa.Array | None:
    """Return ISO 8601 texts with a zone as microseconds, or None if any value has another form."""
    if not set(map(type, values)) <= {str, _NONE}:
        return None
    try:
        return pa.array(values, pa.string()).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    except pa.ArrowException:
        return None


def _parse_time(column: Column, value: str) -> int:
    message = parse_time(value)
    if message is None:
        fix = "send an ISO 8601 time, or microseconds since the epoch"
        raise RequestError(f"field {column.name!r}", "is not a valid timestamp", value=value, fix=fix)
    return message[0]
