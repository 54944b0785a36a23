"""Decode packed rows of several views directly into a matrix.

The result has the same bits as that of ``RowCodec.decode`` and ``Assembler.assemble``. It takes one numpy call for all
views instead of about twenty for each view: the number of calls determines the time of a small request.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from itertools import accumulate, cycle
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.columns import FeatureRef
from skewless.contract.dtypes import DType
from skewless.contract.plan import View
from skewless.contract.reads import PackedReads
from skewless.contract.row_layout import is_intact
from skewless.contract.rows import RowCodec
from skewless.contract.status import Int64Array, Status, StatusArray, row_status
from skewless.contract.vector import Matrix

_PRESENT = np.uint8(Status.PRESENT)
_NOT_FOUND, _EXPIRED, _FUTURE = map(int, (Status.NOT_FOUND, Status.EXPIRED, Status.FUTURE))
_SIGN = np.int64(-(2**63))
_PAST = 1 << 63  # offset of the times in a row: unsigned big-endian bytes then sort like signed times
_FEW = (
    4  # rows up to which a Python loop is faster: numpy's cost per call outweighs the rows, above all with cold caches
)
_NO_LIMIT = 2**63 - 1
_FALSE = b"\0"

_TextCodes = tuple[int, list[float]]  # a column of the matrix, and the code of each row's text; of null, any code


class NumberVectors(NamedTuple):
    """The features of n rows.

    Args:
        matrix: float64, C-contiguous, shape ``(n, n_features)``; NaN is missing, and text is the code of its category.
        status: status of the row of each view, shape ``(n, n_views)``.
        event_ts: event times of the rows, microseconds, shape ``(n, n_views)``; meaningless without a row.
        versions: per view, the origins of the rows; decoded on access.
    """

    matrix: Matrix
    status: StatusArray
    event_ts: Int64Array
    versions: PackedReads

    @classmethod
    def of_windows(cls, names: Sequence[str], known_to: Sequence[int], n: int) -> NumberVectors:
        """Return the vectors of n entities in windowed views, without features; arguments as for ``NumberRows``."""
        event_ts = np.tile(np.array(known_to, dtype=np.int64), (n, 1))
        status = np.zeros(event_ts.shape, dtype=np.uint8)
        return cls(np.empty((n, 0)), status, event_ts, PackedReads(np.dtype([]), b"", names, event_ts))


class NumberRows:
    """Decodes the rows of views that have different names.

    Args:
        views: the views.
        refs: the features to return, at least one, in the order of the matrix's columns.
        codes: per text feature of ``refs``, by its label, the code of each category.
        windows: names of windowed views, whose status and times follow in the vectors.
    """

    def __init__(
        self,
        views: Sequence[View],
        refs: Sequence[FeatureRef],
        codes: Mapping[str, Mapping[str, float]],
        windows: Sequence[str] = (),
    ) -> None:
        codecs = [RowCodec(view) for view in views]
        self._layouts = [codec.layout for codec in codecs]
        self._blanks = [codec.blank for codec in codecs]
        self._record = np.dtype([(v.name, layout.record) for v, layout in zip(views, self._layouts, strict=True)])
        self._size = self._record.itemsize
        self._ttl = np.array([view.ttl_us for view in views], dtype=np.int64)
        # One comparison for all views: a row within the shortest ttl is within its own.
        self._shortest_ttl = np.uint64(min((view.ttl_us for view in views if view.ttl_us), default=_NO_LIMIT))
        # The head bytes of all views that identify view and format, then the flag bytes: 0 for a stored row.
        self._head = np.concatenate([self._bytes("view", "format"), self._bytes("flags")])
        self._expected = np.frombuffer(b"".join(self._blanks), dtype=np.uint8)[self._head]
        self._expected[-len(self._blanks) :] = 0
        self._plain = self._expected.tobytes()
        self._event = self._bytes("event", step=-1)
        self._nulls = self._bytes("nulls")
        self._iter_unpack = struct.Struct("<" + "".join(layout.number_code for layout in self._layouts)).iter_unpack
        heads = [
            next(struct.iter_unpack("<" + each.number_code, blank))
            for each, blank in zip(self._layouts, self._blanks, strict=True)
        ]
        self._views = [(head[1:3], len(head), view.ttl_us) for head, view in zip(heads, views, strict=True)]
        self._map_columns(views, refs)
        self._windows = windows
        self._text_views = [(i, layout) for i, layout in enumerate(self._layouts) if layout.text]
        self._texts: list[tuple[int, int, int, dict[bytes, float]]] = []
        for i, view in enumerate(views):
            for position in self._layouts[i].text:
                ref = FeatureRef(group=view.name, name=view.features[position].name)
                if ref in refs:
                    # Stored text is UTF-8; a value of type bytes is not a category.
                    words = codes[ref.label] if view.features[position].dtype is DType.STRING else {}
                    codes_by_bytes = {word.encode(): code for word, code in words.items()}
                    self._texts.append((refs.index(ref), i, position, codes_by_bytes))

    def vectors(self, rows: Sequence[bytes | None], t: int, known_to: Sequence[int] = ()) -> NumberVectors | None:
        """Return the vectors at time ``t``; None if a row is corrupt: ``RowCodec.decode`` then finds out which.

        Args:
            rows: the rows of the first entity in each view, then of the second entity, and so on.
            t: microseconds.
            known_to: per windowed view, the time up to which all events are in its features, microseconds.
        """
        n_views = len(self._blanks)
        n = len(rows) // n_views
        found = self._pack(rows)
        if found is None:
            return None
        packed, texts = found
        if 0 < n <= _FEW:
            return self._decode_few(packed, t, known_to, texts)
        raw = np.frombuffer(packed, dtype=np.uint8).reshape(n, self._size)
        event_ts = raw.take(self._event, axis=1).view(np.int64) ^ _SIGN
        ages = (t - event_ts).view(np.uint64)  # the age of a future row wraps to a number beyond any ttl
        head, nulls = raw.take(self._head, axis=1), raw.take(self._nulls, axis=1)
        # Compare bytes instead of arrays: for few rows, a numpy call takes ten times as long.
        present = head.tobytes() == self._plain * n and _FALSE not in (ages <= self._shortest_ttl).tobytes()
        if present:
            status = np.zeros(event_ts.shape, dtype=np.uint8)
        else:
            equal = head == self._expected
            # A row of a wrong length shifts all later rows, so their heads do not match either.
            if not equal[:, :-n_views].all():
                return None
            status = row_status(equal[:, -n_views:], event_ts, t, self._ttl)
        matrix = self._numbers(packed, n)
        for column, codes in texts:
            matrix[:, column] = codes
        if not present or nulls.tobytes().strip(_FALSE):
            blank = np.unpackbits(nulls, axis=1, bitorder="little").take(self._bit, axis=1)
            if not present:
                blank |= (status != _PRESENT).take(self._view, axis=1)
            matrix[blank.view(np.bool_)] = np.nan
        if self._windows:
            windows = NumberVectors.of_windows(self._windows, known_to, n)
            status = np.concatenate([status, windows.status], axis=1)
            event_ts = np.concatenate([event_ts, windows.event_ts], axis=1)
        return self._build_vectors(matrix, status, event_ts, packed)

    def _pack(self, rows: Sequence[bytes | None]) -> tuple[bytes, list[_TextCodes]] | None:
        """Return the rows end to end without their texts, and the codes of the texts; None if a row is corrupt."""
        step = len(self._blanks)
        filled = [blank if row is None else row for row, blank in zip(rows, cycle(self._blanks))]
        whole = packed = b"".join(filled)
        if self._text_views:
            fixed = list(filled)
            for i, layout in self._text_views:
                if any(len(row) != layout.length(row) for row in filled[i::step]):
                    return None
                fixed[i::step] = [row[: layout.size] for row in filled[i::step]]
            packed = b"".join(fixed)
        if len(packed) != len(rows) // step * self._size or not is_intact(whole):
            return None
        texts: list[_TextCodes] = []
        if self._texts:
            records = np.frombuffer(packed, self._record)
            for column, i, position, codes in self._texts:
                own = records[(self._record.names or ())[i]]
                found = self._layouts[i].texts(own, filled[i::step], position)
                texts.append((column, [codes.get(text, math.nan) for text in found]))
        return packed, texts

    def _numbers(self, packed: bytes, n: int) -> Matrix:
        """Return the values, without regard to nulls."""
        block = np.empty((n, self._width), dtype=np.float64)
        records, first = np.frombuffer(packed, self._record), 0
        for view, layout in zip(self._record.names or (), self._layouts, strict=True):
            layout.fill(block[:, first : first + layout.width], records[view])
            first += layout.width
        return block if self._order is None else block.take(self._order, axis=1)

    def _decode_few(
        self, packed: bytes, t: int, known_to: Sequence[int], texts: Sequence[_TextCodes]
    ) -> NumberVectors | None:
        """Return the vectors as ``vectors`` does, in a Python loop: faster for a few rows."""
        matrix: list[list[float]] = []
        status: list[list[int]] = []
        event_ts: list[list[int]] = []
        for row in self._iter_unpack(packed):
            values: list[float] = []
            codes: list[int] = []
            times: list[int] = []
            start = 0
            for owner, length, ttl_us in self._views:
                event, view_hash, format_, flags, nulls = row[start : start + 5]
                if (view_hash, format_) != owner:
                    return None
                event_us = int.from_bytes(event, "big") - _PAST
                age, bits = t - event_us, int.from_bytes(nulls, "little")
                code = _NOT_FOUND if flags else _FUTURE if age < 0 else _EXPIRED if 0 < ttl_us < age else 0
                features = row[start + 5 : start + length]
                if code or bits:
                    values += [math.nan if code or bits >> i & 1 else value for i, value in enumerate(features)]
                else:
                    values += features
                codes.append(code)
                times.append(event_us)
                start += length
            matrix.append(values if self._order is None else [values[position] for position in self._positions])
            status.append(codes + [0] * len(known_to))  # windows are PRESENT
            event_ts.append([*times, *known_to])
        for column, text_codes in texts:
            for values, text_code in zip(matrix, text_codes, strict=True):
                if values[column] == values[column]:
                    values[column] = text_code
        arrays = np.array(matrix, dtype=np.float64), np.array(status, dtype=np.uint8), np.array(event_ts, np.int64)
        return self._build_vectors(*arrays, packed)

    def _build_vectors(self, matrix: Matrix, status: StatusArray, event_ts: Int64Array, packed: bytes) -> NumberVectors:
        versions = PackedReads(self._record, packed, self._windows, event_ts[:, len(self._blanks) :])
        return NumberVectors(matrix, status, event_ts, versions)

    def _bytes(self, *names: str, step: int = 1) -> npt.NDArray[np.intp]:
        """Return the byte positions of head fields of all views, in their concatenated rows."""
        starts = accumulate([0, *(layout.size for layout in self._layouts[:-1])])
        positions = [
            start + byte
            for start, layout in zip(starts, self._layouts, strict=True)
            for name in names
            for byte in layout.bytes_of(name)[::step]
        ]
        return np.array(positions, dtype=np.intp)

    def _map_columns(self, views: Sequence[View], refs: Sequence[FeatureRef]) -> None:
        """Set for each column of the matrix its view, its null bit and its position in the block of values."""
        columns: dict[tuple[str, str], tuple[int, int, int]] = {}
        bits = 0
        for i, view in enumerate(views):
            for feature, column in enumerate(view.features):
                columns[view.name, column.name] = (i, bits + feature, len(columns))
            bits += 8 * len(self._layouts[i].bytes_of("nulls"))
        chosen = [columns[ref.group, ref.name] for ref in refs]
        self._width = len(columns)
        self._view, self._bit, order = (np.array(each, dtype=np.intp) for each in zip(*chosen, strict=True))
        self._positions = order.tolist()
        # None: the columns of the matrix are those of the block, so there is nothing to reorder.
        self._order = None if self._positions == list(range(len(columns))) else order
