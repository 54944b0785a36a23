"""Converts records of the prediction log to Arrow, whole arrays at a time: no Python code runs per row.

Arrow arrays share the memory of numpy arrays. ``pyarrow.array`` is not used, because it imports pandas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from skewless.contract.reads import concatenate_versions
from skewless.contract.rows import Versions
from skewless.contract.status import BoolArray, Int64Array, StatusArray
from skewless.contract.vector import Matrix
from skewless.contract.windows.tiles import AppliedPositions
from skewless.infra.reads.online.state_reader import StateProgress
from skewless.infra.records.predictions.record import (
    DecidedEvents,
    LoadColumns,
    Origins,
    PredictionBatch,
    Source,
    largest_output,
)
from skewless.infra.records.predictions.segments import APPLIED, CONTENT, EVENT, FORMAT, READ

Scalar = TypeVar("Scalar", bound=np.generic)
_NUMBER_COLUMNS = ("t", "asked_at", "read_start", "read_end", "skew_us")
_ROW_FIELDS = ("event_ts", "created_ts", "seq", "run_id")
_TEXT_COLUMNS = ("model", "version", "runtime_id", "plan_hash", "missing", "role")
_VERSION_COLUMNS = ("version", "runtime_id", "role")


class ConstantColumns:
    """Constant columns, built once and sliced to the requested length.

    Args:
        origin: their values.
        source: whether callers sent keys or full vectors.
    """

    def __init__(self, origin: LoadColumns, source: Source) -> None:
        self.origin, self._source = origin, source
        self.views = origin.views if source == "entities" else ()
        self._columns: Mapping[str, pa.Array] = {}
        self._read_columns: Mapping[str, pa.Array] = {}
        self._n = -1

    def columns(self, n: int) -> dict[str, pa.Array]:
        """Return the columns of n predictions."""
        self._grow(n)
        return {name: column.slice(0, n) for name, column in self._columns.items()}

    def read_columns(self, n: int) -> dict[str, pa.Array]:
        """Return name and hash of each view, for n predictions."""
        self._grow(n)
        return {name: column.slice(0, n * len(self.views)) for name, column in self._read_columns.items()}

    def _grow(self, n: int) -> None:
        if n > self._n:
            origin, hashes, policy = self.origin, self.origin.transform_hashes, self.origin.policy
            self._n = n
            self._columns = {
                **{name: repeat_words([getattr(origin, name)], n) for name in _TEXT_COLUMNS},
                "source": repeat_words([self._source], n),
                "policy": pa.nulls(n, pa.int64()) if policy is None else numbers(np.full(n, policy, dtype=np.int64)),
                "tolerance": numbers(np.full(n, origin.tolerance)),
                "transform_hashes": equal_lists(n, len(hashes), repeat_words(hashes, n)),
                "format": numbers(np.full(n, FORMAT, dtype=np.uint8)),
            }
            self._read_columns = {
                "view": repeat_words([name for name, _ in self.views], n),
                "hash": repeat_words([digest for _, digest in self.views], n),
            }


def to_batch(records: Sequence[PredictionBatch], constants: ConstantColumns) -> pa.RecordBatch:
    """Return records of one origin and source as rows of the log, without their seal."""
    # Transposed in one pass over the records: each field becomes a tuple with a value per record.
    fields = dict(zip(PredictionBatch._fields, zip(*records, strict=True), strict=True))
    lengths = np.fromiter(map(len, fields["ids"]), dtype=np.int64, count=len(records))
    columns = constants.columns(int(lengths.sum())) | _outputs(fields["matrix"], fields["scores"])
    columns |= _versions(fields["origins"], lengths, constants.origin)
    for name in _NUMBER_COLUMNS:
        columns[name] = numbers(np.repeat(np.array(fields[name], dtype=np.int64), lengths))
    columns["narrow"] = booleans(np.repeat(np.array(fields["narrow"], dtype=np.bool_), lengths))
    columns["trace_id"] = _words([[each or None for each in ids] for ids in fields["trace_ids"]], lengths)
    columns["action"] = _words(fields["actions"], lengths)
    columns["propensity"] = _propensities(fields["propensities"], lengths)
    columns["reasons"] = _reasons(fields["reasons"], lengths)
    columns["lists"] = _list_numbers(fields["lists"], lengths)
    columns["id"] = texts(list(chain.from_iterable(fields["ids"])))
    columns["inputs"] = utf8(list(chain.from_iterable(fields["inputs"])))
    columns["reads"] = _reads(fields["versions"], fields["status"], fields["applied"], lengths, constants)
    columns["watermarks"] = _watermarks(fields["watermarks"], lengths)
    columns |= _events(fields["events"], lengths)
    return pa.RecordBatch.from_arrays([columns[name] for name in CONTENT.names], schema=CONTENT)


def _versions(origins: Sequence[Origins], lengths: Int64Array, origin: LoadColumns) -> dict[str, pa.Array]:
    """Return the columns in which versions differ; none if ``origin`` scored all rows."""
    parts = [part for of, n in zip(origins, lengths.tolist(), strict=True) for part in of or [(origin, n)]]
    if all(own is origin for own, _ in parts):
        return {}
    rows = [own for own, n in parts for _ in range(n)]
    columns = {name: texts([getattr(own, name) for own in rows]) for name in _VERSION_COLUMNS}
    return {**columns, "tolerance": numbers(np.array([own.tolerance for own in rows]))}


def _events(events: Sequence[DecidedEvents | None], lengths: Int64Array) -> dict[str, pa.Array]:
    """Return the column of events, null for requested predictions; of decisions, their times, too."""
    decided = [each for each in events if each is not None]
    if len(decided) < len(events):  # records of one origin are either all requested or all decisions
        return {"event": pa.nulls(int(lengths.sum()), EVENT)}

    def joined(name: str) -> pa.Array:
        return numbers(np.concatenate([getattr(each, name) for each in decided]))

    late = numbers(np.concatenate([each.late for each in decided]).astype(np.uint8)).cast(pa.bool_())
    names = [texts([getattr(each, name) for each in decided for _ in each.seq]) for name in ("stream", "partition")]
    event = pa.StructArray.from_arrays([*names, joined("seq"), joined("event_ts"), late], fields=list(EVENT))
    return {"event": event, "t": joined("t")}


def _words(parts: Sequence[Sequence[str | None]], lengths: Int64Array) -> pa.StringArray:
    if not any(parts):
        return pa.nulls(int(lengths.sum()), pa.string())
    return optional_texts([word for of, n in zip(parts, lengths.tolist(), strict=True) for word in of or [None] * n])


def _reasons(reasons: Sequence[Sequence[Sequence[str]]], lengths: Int64Array) -> pa.Array:
    if not any(reasons):
        return pa.nulls(int(lengths.sum()), CONTENT.field("reasons").type)
    rows = [codes for of, n in zip(reasons, lengths.tolist(), strict=True) for codes in of or [()] * n]
    ends = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    return pa.ListArray.from_arrays(numbers(ends), texts(list(chain.from_iterable(rows))))


def _list_numbers(lists: Sequence[Mapping[str, int]], lengths: Int64Array) -> pa.StringArray:
    if not any(lists):
        return pa.nulls(int(lengths.sum()), pa.string())
    encoded = [orjson.dumps(of, option=orjson.OPT_SORT_KEYS).decode() for of in lists]
    return texts([word for word, n in zip(encoded, lengths.tolist(), strict=True) for _ in range(n)])


def _propensities(parts: Sequence[Sequence[float]], lengths: Int64Array) -> pa.Array:
    if not any(parts):
        return pa.nulls(int(lengths.sum()), pa.float64())
    values = chain.from_iterable(of or [np.nan] * n for of, n in zip(parts, lengths.tolist(), strict=True))
    flat = np.fromiter(values, dtype=np.float64)
    return numbers(flat, ~np.isnan(flat))


def _reads(
    versions: Sequence[Mapping[str, Versions]],
    status: Sequence[StatusArray],
    applied: Sequence[Mapping[str, StateProgress]],
    lengths: Int64Array,
    constants: ConstantColumns,
) -> pa.ListArray:
    """Return the views' reads: for each row a list of one struct per view, in the order of the plan."""
    n, names = int(lengths.sum()), [name for name, _ in constants.views]
    if not names:
        return equal_lists(n, 0, pa.nulls(0, READ))
    by_view = concatenate_versions(versions)
    each_view = [by_view[name] for name in names]
    columns = {
        **constants.read_columns(n),
        "status": numbers(concatenate(status)),
        **{field: numbers(np.stack([getattr(view, field) for view in each_view], axis=1)) for field in _ROW_FIELDS},
        **_window_columns(applied, lengths, names),
    }
    reads = pa.StructArray.from_arrays([columns[field.name] for field in READ], fields=list(READ))
    return equal_lists(n, len(names), reads)


def _window_columns(
    applied: Sequence[Mapping[str, StateProgress]], lengths: Int64Array, names: Sequence[str]
) -> dict[str, pa.Array]:
    """Return generation and applied positions of each view of each row; null for views without windows."""
    n, width = int(lengths.sum()), len(names)
    places = [place for place, name in enumerate(names) if name in applied[0]]
    if not places:
        return {"generation": pa.nulls(n * width, pa.int32()), "applied": pa.nulls(n * width, pa.list_(APPLIED))}
    views = {place: [record[names[place]] for record in applied] for place in places}
    generations = np.zeros((n, width), dtype=np.int32)
    for place, each in views.items():
        generations[:, place] = np.repeat([one.generation for one in each], lengths)
    windowed = np.tile(np.isin(np.arange(width), places), n)
    ends, slots = _slots(views, lengths, width)
    return {"generation": numbers(generations, windowed), "applied": lists(ends, slots, windowed)}


def _slots(
    views: Mapping[int, Sequence[StateProgress]], lengths: Int64Array, width: int
) -> tuple[Int64Array, pa.StructArray]:
    """Return the slots, ordered by row and then by view, and the offset at which each view's slots end."""
    slots = [AppliedPositions.concatenate([one.slots for one in each], lengths) for each in views.values()]
    # Each slot gets the index of its (row, view) pair in row-major order; a stable sort then groups slots by row.
    read = np.concatenate([each.entity * width + place for place, each in zip(views, slots, strict=True)])
    order = np.argsort(read, kind="stable")
    partition = np.concatenate([each.partition for each in slots])[order]
    seq = np.concatenate([each.seq for each in slots])[order]
    ends = np.cumsum(np.bincount(read, minlength=int(lengths.sum()) * width))
    return np.append(0, ends), pa.StructArray.from_arrays([numbers(partition), numbers(seq)], fields=list(APPLIED))


def _watermarks(watermarks: Sequence[Int64Array], lengths: Int64Array) -> pa.ListArray:
    """Return for each row the watermarks of its views, in the order of its reads; null: unknown."""
    rows = np.repeat(np.stack(watermarks), lengths, axis=0)
    known = np.ascontiguousarray(rows > 0).reshape(-1)
    return equal_lists(len(rows), rows.shape[1], numbers(rows, known))


def _outputs(matrices: Sequence[Matrix], outputs: Sequence[Matrix]) -> dict[str, pa.Array]:
    matrix = concatenate(matrices).reshape(-1, matrices[0].shape[1])
    scores = np.concatenate(outputs)
    best, several = largest_output(scores), scores.ndim > 1
    return {
        "vector": _lists(matrix),
        "score": numbers(best),
        "scores": _lists(scores) if several else pa.nulls(len(scores), CONTENT.field("scores").type),
    }


def _lists(rows: Matrix) -> pa.ListArray:
    return equal_lists(len(rows), rows.shape[1], numbers(rows))


def concatenate(arrays: Sequence[npt.NDArray[Scalar]]) -> npt.NDArray[Scalar]:
    """Return the concatenation of C-contiguous arrays of one type, flat and read-only.

    For small arrays this takes a quarter of the time of ``numpy.concatenate``.

    >>> concatenate([np.array([[1, 2]]), np.array([[3, 4], [5, 6]])]).tolist()
    [1, 2, 3, 4, 5, 6]
    """
    return np.frombuffer(b"".join(cast("Sequence[bytes]", arrays)), dtype=arrays[0].dtype)


def numbers(values: npt.NDArray[Any], valid: BoolArray | None = None) -> pa.Array:
    """Return numbers as an Arrow array; several dimensions are flattened row by row.

    Args:
        valid: which are not null, shape ``(n,)``; None: all.

    >>> numbers(np.array([[1, 2], [3, 4]]), np.array([True, True, False, True])).to_pylist()
    [1, 2, None, 4]
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(flat.dtype), len(flat), [_validity_bits(valid), pa.py_buffer(flat)]
    )


def texts(words: Sequence[str], valid: BoolArray | None = None) -> pa.StringArray:
    """Return texts as an Arrow array.

    Args:
        valid: which are not null, shape ``(n,)``, of words in ASCII; None: all.

    >>> texts(["a", "", "bc"]).to_pylist(), texts(["é", "b"]).to_pylist()
    (['a', '', 'bc'], ['é', 'b'])
    """
    joined_text = "".join(words)
    if not joined_text.isascii():
        return utf8([word.encode() for word in words])
    return _strings(_offsets(words), joined_text.encode(), valid)


def optional_texts(words: Sequence[str | None]) -> pa.StringArray:
    """Return texts as an Arrow array with nulls.

    >>> optional_texts(["é", None, ""]).to_pylist()
    ['é', None, '']
    """
    is_set = np.fromiter((word is not None for word in words), dtype=np.bool_, count=len(words))
    encoded = [(word or "").encode() for word in words]
    return _strings(_offsets(encoded), b"".join(encoded), is_set)


def utf8(words: Sequence[bytes]) -> pa.StringArray:
    """Return texts in UTF-8 as an Arrow array; they must be valid.

    >>> utf8([b"a", b"", b"bc"]).to_pylist()
    ['a', '', 'bc']
    """
    return _strings(_offsets(words), b"".join(words))


def repeat_words(words: Sequence[str], n: int) -> pa.StringArray:
    """Return the sequence of words n times as an Arrow array.

    >>> repeat_words(["a", "bc"], 2).to_pylist()
    ['a', 'bc', 'a', 'bc']
    """
    encoded = [word.encode() for word in words]
    data = b"".join(encoded)
    starts = np.cumsum([0, *map(len, encoded)])
    offsets = np.arange(n)[:, None] * len(data) + starts[None, :-1]
    return _strings(np.append(offsets, n * len(data)), data * n)


def lists(offsets: Int64Array, values: pa.Array, valid: BoolArray | None = None) -> pa.ListArray:
    """Return lists of values as an Arrow array.

    Args:
        offsets: start of each list, then the end of the last, shape ``(n + 1,)``.
        valid: which lists are not null, shape ``(n,)``; None: all.

    >>> lists(np.array([0, 2, 2, 3]), numbers(np.array([5, 6, 7])), np.array([True, False, True])).to_pylist()
    [[5, 6], None, [7]]
    """
    buffers = [_validity_bits(valid), pa.py_buffer(offsets.astype(np.int32))]
    return pa.Array.from_buffers(pa.list_(values.type), len(offsets) - 1, buffers, children=[values])


def equal_lists(n: int, width: int, values: pa.Array) -> pa.ListArray:
    """Return n lists of equal length as an Arrow array.

    >>> equal_lists(2, 2, numbers(np.arange(4))).to_pylist()
    [[0, 1], [2, 3]]
    """
    return lists(np.arange(n + 1) * width, values)


def _offsets(words: Sequence[str | bytes]) -> Int64Array:
    return np.append(0, np.cumsum(np.fromiter(map(len, words), dtype=np.int64, count=len(words))))


def _strings(offsets: Int64Array, data: bytes, valid: BoolArray | None = None) -> pa.StringArray:
    buffers = [_validity_bits(valid), pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)


def booleans(values: BoolArray) -> pa.BooleanArray:
    """Return bools as an Arrow array."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _validity_bits(values)])


def _validity_bits(valid: BoolArray | None) -> pa.Buffer | None:
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
