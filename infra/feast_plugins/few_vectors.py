"""The entries of ``vectors`` for a few rows: cut from the packed bytes one by one, where columns do not pay yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from feast.protos.feast.types.Value_pb2 import Value

from skewless.contract.row_layout import RowLayout
from skewless.contract.status import BoolArray
from skewless.infra.feast_plugins.stored import OPAQUE
from skewless.infra.feast_plugins.values import SECOND_US
from skewless.infra.feast_plugins.vectors import (
    EIGHT_BYTES,
    ENTRY,
    FOUR_BYTES,
    LONGEST_VARINT,
    TEXT,
    VARINT,
    varint,
)

FEW = 8
_UINT64 = 2**64 - 1
_NOTHING = ENTRY + varint(0)

Entry = Callable[[bytes], bytes]
"""From a packed row to the entry of one feature."""


def entry_writers(layout: RowLayout, kinds: Sequence[str], places: Sequence[int]) -> list[Entry]:
    """Return how the entry of each feature is cut from a row.

    Args:
        kinds: per feature, the field of ``Value`` that holds it, or ``OPAQUE``.
        places: of the features in the row.
    """
    return [_writer(layout, kind, place) for kind, place in zip(kinds, places, strict=True)]


def few_entries(writers: Sequence[Entry], rows: Sequence[bytes | None], shown: BoolArray) -> list[bytes]:
    """Return for each feature what ``column_entries`` returns, from rows that were decoded without complaint.

    Args:
        writers: what ``entry_writers`` returned.
        shown: which values are told, shape ``(n_features, n)``; none where there is no row.
    """
    if len(rows) == 1:
        row = rows[0] or b""
        return [write(row) if ok else _NOTHING for write, ok in zip(writers, shown[:, 0].tolist(), strict=True)]
    return [
        b"".join([write(row or b"") if ok else _NOTHING for row, ok in zip(rows, oks, strict=True)])
        for write, oks in zip(writers, shown.tolist(), strict=True)
    ]


def _writer(layout: RowLayout, kind: str, place: int) -> Entry:
    cell = layout.cells[place]
    if place in layout.text:
        first = layout.text.index(place) - 1
        return _text(kind, layout.size, layout.cells[layout.text[first]] if first >= 0 else slice(0), cell)
    if kind in _WIRE:
        # Floats and booleans lie in a row as protobuf has them.
        head = ENTRY + varint(cell.stop - cell.start + 1) + _tag(kind, _WIRE[kind])
        return lambda row: head + row[cell]
    return _integer(kind, cell, SECOND_US if kind == "unix_timestamp_val" else 1)


def _integer(kind: str, cell: slice, unit: int) -> Entry:
    heads = [ENTRY + varint(size + 1) + _tag(kind, VARINT) for size in range(LONGEST_VARINT + 1)]

    def write(row: bytes) -> bytes:
        number = varint(int.from_bytes(row[cell], "little", signed=True) // unit & _UINT64)
        return heads[len(number)] + number

    return write


def _text(kind: str, heap: int, before: slice, cell: slice) -> Entry:
    """Return the writer of text, which begins in the heap where the one before it ends."""
    tag = b"" if kind == OPAQUE else _tag(kind, TEXT)

    def write(row: bytes) -> bytes:
        start, end = (int.from_bytes(row[each], "little") for each in (before, cell))
        body = tag + varint(end - start) + row[heap + start : heap + end] if tag else row[heap + start : heap + end]
        return ENTRY + varint(len(body)) + body

    return write


def _tag(kind: str, wire: int) -> bytes:
    return bytes([Value.DESCRIPTOR.fields_by_name[kind].number << 3 | wire])


_WIRE = {"double_val": EIGHT_BYTES, "float_val": FOUR_BYTES, "bool_val": VARINT}
