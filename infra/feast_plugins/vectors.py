"""Unpacked rows to Feast's ``FeatureVector`` messages, written as bytes: no message per value.

Columns become entries in a few steps of numpy. Of a few rows these steps cost more than the values, which are written
cell by cell.
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
# Protobuf's wire format, as far as Feast's answers need it (protobuf.dev, "Encoding").
VARINT, EIGHT_BYTES, TEXT, FOUR_BYTES = 0, 1, 2, 5
LONGEST_VARINT = 10
_SHORT = 0x7F
_ONE_BYTE = [bytes([number]) for number in range(_SHORT + 1)]
_RESULT = bytes([GetOnlineFeaturesResponse.DESCRIPTOR.fields_by_name["results"].number << 3 | TEXT])
ENTRY = bytes([FeatureVector.DESCRIPTOR.fields_by_name["values"].number << 3 | TEXT])
_STATUSES = bytes([FeatureVector.DESCRIPTOR.fields_by_name["statuses"].number << 3 | TEXT])

CellWriter: TypeAlias = Callable[[Any], bytes]
"""From the cell of a packed row to its entry of the repeated ``Value``."""


def varint(number: int) -> bytes:
    r"""Return a number below 2^64 in groups of seven bits.

    >>> varint(5), varint(300)
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
_NOTHING = ENTRY + varint(0)
# Floats and booleans lie in a row as protobuf has them.
_FIXED = {"double_val": (EIGHT_BYTES, "<f8"), "float_val": (FOUR_BYTES, "<f4"), "bool_val": (VARINT, "u1")}
_TEXTS = ("string_val", "bytes_val", OPAQUE)
_PRESENT, _NULL = int(Status.PRESENT), int(Status.NULL)
_STATUS_OF = {
    Status.PRESENT: FieldStatus.PRESENT,
    Status.NULL: FieldStatus.NULL_VALUE,
    Status.NOT_FOUND: FieldStatus.NOT_FOUND,
    Status.EXPIRED: FieldStatus.OUTSIDE_MAX_AGE,
    # Before its time a row is not there, as in a point-in-time join.
    Status.FUTURE: FieldStatus.NOT_FOUND,
}
_STATUS_BYTES = np.array([_STATUS_OF.get(status, FieldStatus.INVALID) for status in Status], dtype=np.uint8)


def shown_cells(nulls: BoolArray, status: StatusArray) -> BoolArray:
    """Return which values are told, shape ``(k, n)``."""
    cells: BoolArray = ~nulls & (status == _PRESENT)
    return cells


def column_entries(kinds: Sequence[str], values: Sequence[npt.NDArray[Any]], shown: BoolArray) -> list[bytes]:
    """Return for each feature its entries of the repeated ``Value``, those of one kind in one step.

    Args:
        kinds: per feature, the field of ``Value`` that holds it, or ``OPAQUE``.
        values: per feature, as the row codec returns it, shape ``(n,)``.
        shown: which values are told, shape ``(k, n)``.
    """
    entries = [b""] * len(kinds)
    for kind in dict.fromkeys(kinds):
        places = [i for i, item in enumerate(kinds) if item == kind]
        for i, body in zip(places, value_entries(kind, [values[i] for i in places], shown[places]), strict=True):
            entries[i] = body
    return entries


def cell_writer(kind: str) -> CellWriter:
    """Return what writes the cells of a feature.

    Args:
        kind: the field of ``Value`` that holds it, or ``OPAQUE``.
    """
    if kind == OPAQUE:
        return lambda text: ENTRY + varint(len(text)) + text
    if kind in _TEXTS:
        tag = _tag(kind, TEXT)
        return lambda text: _text_entry(tag, text)
    if kind in _FIXED:
        wire, dtype = _FIXED[kind]
        head = ENTRY + varint(1 + np.dtype(dtype).itemsize) + _tag(kind, wire)
        return lambda cell: head + cell
    unit = SECOND_US if kind == "unix_timestamp_val" else 1
    heads = [ENTRY + varint(1 + size) + _tag(kind, VARINT) for size in range(LONGEST_VARINT + 1)]
    return lambda number: _integer_entry(heads, number // unit)


def cell_entries(writers: Sequence[CellWriter], cells: Sequence[Sequence[Cell]], shown: BoolArray) -> list[bytes]:
    """Return what ``column_entries`` returns.

    Args:
        writers: per feature, its ``cell_writer``.
        cells: per feature, its values as they lie in the rows.
        shown: which values are told, shape ``(k, n)``.
    """
    if shown.shape[1] == 1:
        told = shown[:, 0].tolist()
        return [write(cell) if ok else _NOTHING for write, (cell,), ok in zip(writers, cells, told, strict=True)]
    return [
        b"".join([write(cell) if ok else _NOTHING for cell, ok in zip(column, oks, strict=True)])
        for write, column, oks in zip(writers, cells, shown.tolist(), strict=True)
    ]


def response_bytes(entries: Sequence[bytes], nulls: BoolArray, status: StatusArray, stamps: bytes) -> bytes:
    """Return k features of n rows as the bytes of a response that holds just their vectors.

    Args:
        entries: what ``column_entries`` or ``cell_entries`` returned.
        nulls: shape ``(k, n)``.
        status: of the rows, shape ``(n,)``.
        stamps: what ``event_stamps`` returned for the rows.

    >>> nulls, status = np.array([[False, True]]), np.zeros(2, dtype=np.uint8)
    >>> entries = column_entries(["int64_val"], [np.array([7, 0])], shown_cells(nulls, status))
    >>> vector = GetOnlineFeaturesResponse.FromString(response_bytes(entries, nulls, status, b"")).results[0]
    >>> vector.values[0].int64_val, vector.values[1].WhichOneof("val"), list(vector.statuses)
    (7, None, [1, 2])
    """
    present = status == _PRESENT
    statuses = _STATUS_BYTES[np.where(nulls & present, _NULL, status)].tobytes()
    n = len(status)
    head = _STATUSES + varint(n)
    rest = len(head) + n + len(stamps)
    parts: list[bytes] = []
    for i, body in enumerate(entries):
        parts += (_RESULT, varint(len(body) + rest), body, head, statuses[i * n : (i + 1) * n], stamps)
    return b"".join(parts)


def event_stamps(event_ts: Int64Array, shown: BoolArray) -> bytes:
    """Return the event times of rows as the last field of their vectors; an empty one where a row is not shown."""
    pairs = [
        divmod(event, SECOND_US) if ok else (0, 0) for event, ok in zip(event_ts.tolist(), shown.tolist(), strict=True)
    ]
    message = FeatureVector(event_timestamps=[Timestamp(seconds=a, nanos=b * 1_000) for a, b in pairs])
    return bytes(message.SerializeToString())


def value_entries(kind: str, columns: Sequence[npt.NDArray[Any]], shown: BoolArray) -> list[bytes]:
    """Return columns of one kind as entries of a repeated ``Value``, empty messages where they are not shown.

    Args:
        columns: k arrays of shape ``(n,)``.
        shown: shape ``(k, n)``.
    """
    if kind in _TEXTS:
        texts = [list(map(_encoded, column.tolist())) for column in columns]
        return cell_entries([cell_writer(kind)] * len(columns), texts, shown)
    numbers = np.stack(columns)
    if kind in _FIXED:
        wire, dtype = _FIXED[kind]
        width = np.dtype(dtype).itemsize
        payload = np.ascontiguousarray(numbers, dtype=dtype).view(np.uint8).reshape(*numbers.shape, width)
        return _numbers(_tag(kind, wire), payload, np.full(numbers.shape, width), shown)
    integers = (numbers // SECOND_US if kind == "unix_timestamp_val" else numbers).astype(np.int64)
    payload, lengths = _varints(integers.view(np.uint64))
    return _numbers(_tag(kind, VARINT), payload, lengths, shown)


def _numbers(tag: bytes, payload: npt.NDArray[np.uint8], lengths: Int64Array, shown: BoolArray) -> list[bytes]:
    """Return entries of a few bytes, written at full width and then without what each does not use.

    Args:
        payload: shape ``(k, n, width)``.
        lengths: how many bytes of each payload count, shape ``(k, n)``.
    """
    width = 3 + payload.shape[-1]
    sizes = np.where(shown, 1 + lengths, 0)
    entries = np.empty((*lengths.shape, width), dtype=np.uint8)
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


def _varints(numbers: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint8], Int64Array]:
    """Return protobuf's form of each number in 10 bytes, along a new last axis, and how many of them count."""
    rest = numbers[..., None] >> (np.arange(LONGEST_VARINT, dtype=np.uint64) * np.uint64(7))
    lengths = np.maximum((rest != 0).sum(axis=-1), 1)
    groups = (rest & np.uint64(_SHORT)).astype(np.uint8)
    groups[np.arange(LONGEST_VARINT) < lengths[..., None] - 1] |= 0x80
    return groups, lengths


def _encoded(text: str | bytes | None) -> bytes:
    return text.encode() if isinstance(text, str) else text or b""


def _tag(kind: str, wire: int) -> bytes:
    return bytes([Value.DESCRIPTOR.fields_by_name[kind].number << 3 | wire])


def _text_entry(tag: bytes, text: bytes) -> bytes:
    body = tag + varint(len(text)) + text
    return ENTRY + varint(len(body)) + body


def _integer_entry(heads: Sequence[bytes], number: int) -> bytes:
    body = varint(number & _UINT64)
    return heads[len(body)] + body
