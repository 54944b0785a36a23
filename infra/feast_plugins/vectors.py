"""Encode decoded rows as Feast's ``FeatureVector`` messages directly in bytes, without a message per value.

Many rows are encoded column by column in a few numpy calls. For a few rows these calls would take longer than the
values, so they are encoded cell by cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from skewless.contract.row_layout import Cell
from skewless.contract.status import BoolArray, Int64Array, Status, StatusArray
from skewless.infra.feast_plugins.stored_views import OPAQUE
from skewless.infra.feast_plugins.values import SECOND_US

FeatureVector = GetOnlineFeaturesResponse.FeatureVector
# The parts of Protobuf's wire format that Feast's responses use (protobuf.dev, "Encoding").
VARINT, EIGHT_BYTES, TEXT, FOUR_BYTES = 0, 1, 2, 5
LONGEST_VARINT = 10
_SHORT = 0x7F
_ONE_BYTE = [bytes([number]) for number in range(_SHORT + 1)]
# Field numbers come from Feast's descriptors: a Feast with other numbers gets other bytes.
_RESULT = bytes([GetOnlineFeaturesResponse.DESCRIPTOR.fields_by_name["results"].number << 3 | TEXT])
ENTRY = bytes([FeatureVector.DESCRIPTOR.fields_by_name["values"].number << 3 | TEXT])
_STATUSES = bytes([FeatureVector.DESCRIPTOR.fields_by_name["statuses"].number << 3 | TEXT])

CellWriter: TypeAlias = Callable[[Any], bytes]
"""Encodes a cell of a packed row as an entry of the repeated ``Value``."""


def encode_varint(number: int) -> bytes:
    r"""Return Protobuf's varint of a number below 2^64: groups of seven bits.

    >>> encode_varint(5), encode_varint(300)
    (b'\x05', b'\xac\x02')
    """
    if number <= _SHORT:
        return _ONE_BYTE[number]
    parts = []
    while number > _SHORT:
        parts.append(number & _SHORT | 0x80)
        number >>= 7
    return bytes([*parts, number])


FEW = 8

_UINT64 = 2**64 - 1
_EMPTY_ENTRY = ENTRY + encode_varint(0)
# Floats and booleans have the same bytes in a row and in Protobuf.
_FIXED = {"double_val": (EIGHT_BYTES, "<f8"), "float_val": (FOUR_BYTES, "<f4"), "bool_val": (VARINT, "u1")}
_TEXTS = ("string_val", "bytes_val", OPAQUE)
_PRESENT, _NULL = int(Status.PRESENT), int(Status.NULL)
_STATUS_OF = {
    Status.PRESENT: FieldStatus.PRESENT,
    Status.NULL: FieldStatus.NULL_VALUE,
    Status.NOT_FOUND: FieldStatus.NOT_FOUND,
    Status.EXPIRED: FieldStatus.OUTSIDE_MAX_AGE,
    # A future row does not exist yet, as in a point-in-time join.
    Status.FUTURE: FieldStatus.NOT_FOUND,
}
_STATUS_BYTES = np.array([_STATUS_OF.get(status, FieldStatus.INVALID) for status in Status], dtype=np.uint8)


def find_present(nulls: BoolArray, status: StatusArray) -> BoolArray:
    """Return which values are in the response, shape ``(k, n)``."""
    cells: BoolArray = ~nulls & (status == _PRESENT)
    return cells


def encode_columns(kinds: Sequence[str], values: Sequence[npt.NDArray[Any]], present: BoolArray) -> list[bytes]:
    """Return for each feature its entries of the repeated ``Value``; features of one kind are encoded together.

    Args:
        kinds: per feature, its field of ``Value``, or ``OPAQUE``.
        values: per feature, its column from the row codec, shape ``(n,)``.
        present: which values are in the response, shape ``(k, n)``.
    """
    entries = [b""] * len(kinds)
    for kind in dict.fromkeys(kinds):
        features = [i for i, item in enumerate(kinds) if item == kind]
        bodies = encode_values(kind, [values[i] for i in features], present[features])
        for i, body in zip(features, bodies, strict=True):
            entries[i] = body
    return entries


def cell_writer(kind: str) -> CellWriter:
    """Return the function that encodes the cells of a feature.

    Args:
        kind: its field of ``Value``, or ``OPAQUE``.
    """
    if kind == OPAQUE:
        return lambda text: ENTRY + encode_varint(len(text)) + text
    if kind in _TEXTS:
        tag = _tag(kind, TEXT)
        return lambda text: _text_entry(tag, text)
    if kind in _FIXED:
        wire, dtype = _FIXED[kind]
        head = ENTRY + encode_varint(1 + np.dtype(dtype).itemsize) + _tag(kind, wire)
        return lambda cell: head + cell
    unit = SECOND_US if kind == "unix_timestamp_val" else 1
    heads = [ENTRY + encode_varint(1 + size) + _tag(kind, VARINT) for size in range(LONGEST_VARINT + 1)]
    return lambda number: _integer_entry(heads, number // unit)


def encode_cells(writers: Sequence[CellWriter], cells: Sequence[Sequence[Cell]], present: BoolArray) -> list[bytes]:
    """Return the entries as ``encode_columns``.

    Args:
        writers: per feature, its ``cell_writer``.
        cells: per feature, its stored values.
        present: which values are in the response, shape ``(k, n)``.
    """
    if present.shape[1] == 1:
        oks = present[:, 0].tolist()
        return [write(cell) if ok else _EMPTY_ENTRY for write, (cell,), ok in zip(writers, cells, oks, strict=True)]
    return [
        b"".join([write(cell) if ok else _EMPTY_ENTRY for cell, ok in zip(column, oks, strict=True)])
        for write, column, oks in zip(writers, cells, present.tolist(), strict=True)
    ]


def encode_response(entries: Sequence[bytes], nulls: BoolArray, status: StatusArray, event_times: bytes) -> bytes:
    """Return k features of n rows as the bytes of a response with only their vectors.

    Args:
        entries: result of ``encode_columns`` or ``encode_cells``.
        nulls: nulls, shape ``(k, n)``.
        status: status of the rows, shape ``(n,)``.
        event_times: result of ``encode_event_times`` for the rows.

    >>> nulls, status = np.array([[False, True]]), np.zeros(2, dtype=np.uint8)
    >>> entries = encode_columns(["int64_val"], [np.array([7, 0])], find_present(nulls, status))
    >>> vector = GetOnlineFeaturesResponse.FromString(encode_response(entries, nulls, status, b"")).results[0]
    >>> vector.values[0].int64_val, vector.values[1].WhichOneof("val"), list(vector.statuses)
    (7, None, [1, 2])
    """
    present = status == _PRESENT
    statuses = _STATUS_BYTES[np.where(nulls & present, _NULL, status)].tobytes()
    n = len(status)
    # Statuses are packed varints below 128: one byte each.
    head = _STATUSES + encode_varint(n)
    rest = len(head) + n + len(event_times)
    parts: list[bytes] = []
    for i, body in enumerate(entries):
        parts += (_RESULT, encode_varint(len(body) + rest), body, head, statuses[i * n : (i + 1) * n], event_times)
    return b"".join(parts)


def encode_event_times(event_ts: Int64Array, present: BoolArray) -> bytes:
    """Return the encoded event times of rows, the last field of their vectors; empty for rows that are not present."""
    pairs = [
        divmod(event, SECOND_US) if ok else (0, 0)
        for event, ok in zip(event_ts.tolist(), present.tolist(), strict=True)
    ]
    message = FeatureVector(event_timestamps=[Timestamp(seconds=a, nanos=b * 1_000) for a, b in pairs])
    return bytes(message.SerializeToString())


def encode_values(kind: str, columns: Sequence[npt.NDArray[Any]], present: BoolArray) -> list[bytes]:
    """Return columns of one kind as entries of a repeated ``Value``; empty messages for values that are not present.

    Args:
        columns: k arrays of shape ``(n,)``.
        present: which values are in the response, shape ``(k, n)``.
    """
    if kind in _TEXTS:
        texts = [
            [text.encode() if isinstance(text, str) else text or b"" for text in column.tolist()] for column in columns
        ]
        return encode_cells([cell_writer(kind)] * len(columns), texts, present)
    numbers = np.stack(columns)
    if kind in _FIXED:
        wire, dtype = _FIXED[kind]
        width = np.dtype(dtype).itemsize
        payload = np.ascontiguousarray(numbers, dtype=dtype).view(np.uint8).reshape(*numbers.shape, width)
        return _encode_short(_tag(kind, wire), payload, np.full(numbers.shape, width), present)
    integers = (numbers // SECOND_US if kind == "unix_timestamp_val" else numbers).astype(np.int64)
    # Protobuf encodes a negative integer, also of 32 bits, as 64 bits in two's complement.
    payload, lengths = _encode_varints(integers.view(np.uint64))
    return _encode_short(_tag(kind, VARINT), payload, lengths, present)


def _encode_short(tag: bytes, payload: npt.NDArray[np.uint8], lengths: Int64Array, present: BoolArray) -> list[bytes]:
    """Return entries of short payloads: written at full width, then cut to their lengths.

    Args:
        payload: bytes, shape ``(k, n, width)``.
        lengths: number of used bytes of each payload, shape ``(k, n)``.
    """
    width = 3 + payload.shape[-1]
    sizes = np.where(present, 1 + lengths, 0)
    # A payload has at most ten bytes, so each length fits into one byte.
    entries = np.empty((*lengths.shape, width), dtype=np.uint8)
    # An entry: its tag, its length, the tag of the value, the payload.
    entries[..., 0] = ENTRY[0]
    entries[..., 1] = sizes
    entries[..., 2] = tag[0]
    entries[..., 3:] = payload
    if bool((sizes == width - 2).all()):
        joined = entries.tobytes()
    else:
        joined = entries[np.arange(width) < 2 + sizes[..., None]].tobytes()
    ends = (2 + sizes).sum(axis=1).cumsum().tolist()
    return [joined[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _encode_varints(numbers: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint8], Int64Array]:
    """Return the varint of each number in 10 bytes, along a new last axis, and the number of used bytes."""
    rest = numbers[..., None] >> (np.arange(LONGEST_VARINT, dtype=np.uint64) * np.uint64(7))
    lengths = np.maximum((rest != 0).sum(axis=-1), 1)
    groups = (rest & np.uint64(_SHORT)).astype(np.uint8)
    groups[np.arange(LONGEST_VARINT) < lengths[..., None] - 1] |= 0x80
    return groups, lengths


def _tag(kind: str, wire: int) -> bytes:
    return bytes([Value.DESCRIPTOR.fields_by_name[kind].number << 3 | wire])


def _text_entry(tag: bytes, text: bytes) -> bytes:
    body = tag + encode_varint(len(text)) + text
    return ENTRY + encode_varint(len(body)) + body


def _integer_entry(heads: Sequence[bytes], number: int) -> bytes:
    body = encode_varint(number & _UINT64)
    return heads[len(body)] + body
