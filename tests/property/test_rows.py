"""Rows come back from their bytes to the last bit, and bytes rank as their versions do."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from skewless.contract.dtypes import DType
from skewless.contract.rows import NO_TIME, RANK_BYTES, RowCodec, Versions
from tests.worlds.plans import make_view

INT64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), -1, 0, 2**53 + 1, 2**63 - 1])
TIMES = st.integers(-(2**63) + 1, 2**63 - 1) | st.sampled_from([-1, 0, 1, 253_402_300_799_999_999])
# Floats are drawn as bits, so that NaN payloads, signalling NaN and -0.0 occur.
BITS64 = st.integers(0, 2**64 - 1) | st.sampled_from([1 << 63, 0x7FF0000000000001, 0x7FF8000000000ABC, 0xFFF << 52])
BITS32 = st.integers(0, 2**32 - 1) | st.sampled_from([1 << 31, 0x7F800001, 0x7FC00ABC, 0xFF800000])
RAW: dict[DType, st.SearchStrategy[Any]] = {
    DType.INT32: st.integers(-(2**31), 2**31 - 1),
    DType.INT64: INT64,
    DType.FLOAT32: BITS32,
    DType.FLOAT64: BITS64,
    DType.BOOL: st.booleans(),
    DType.STRING: st.text(max_size=8),
    DType.BYTES: st.binary(max_size=8),
    DType.TIMESTAMP: INT64,
}
SCHEMAS = st.lists(st.sampled_from(list(DType)), min_size=1, max_size=20)
RUNS = st.integers(-1, 2**31 - 1)
VERSION = st.tuples(TIMES, st.none() | TIMES, st.integers(0, 2**63 - 1), RUNS, st.booleans())


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[DType], list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return types, versions and rows; a null is None."""
    dtypes = draw(SCHEMAS)
    n = draw(st.integers(0, 4))
    row = st.tuples(*(st.none() | RAW[dtype] for dtype in dtypes))
    return dtypes, draw(st.lists(VERSION, min_size=n, max_size=n)), draw(st.lists(row, min_size=n, max_size=n))


def column_of(dtype: DType, raw: list[Any]) -> np.ndarray[Any, Any]:
    """Return an array with the drawn bits; nulls hold rubbish, which must not come through."""
    if dtype.is_text:
        objects = np.empty(len(raw), dtype=object)
        objects[:] = raw
        return objects
    bits = {DType.FLOAT32: "<u4", DType.FLOAT64: "<u8"}.get(dtype, dtype.numpy)
    return np.array([1 if value is None else value for value in raw], dtype=bits).view(dtype.numpy)


def versions_of(drawn: list[tuple[Any, ...]]) -> Versions:
    event, created, seq, run, tombstone = zip(*drawn, strict=True) if drawn else ((),) * 5
    return Versions(
        event_ts=np.array(event, dtype=np.int64),
        created_ts=np.array([NO_TIME if one is None else one for one in created], dtype=np.int64),
        seq=np.array(seq, dtype=np.int64),
        run_id=np.array(run, dtype=np.int64),
        tombstone=np.array(tombstone, dtype=np.bool_),
    )


@given(tables())
def test_rows_come_back_to_the_last_bit(
    table: tuple[list[DType], list[tuple[Any, ...]], list[tuple[Any, ...]]],
) -> None:
    dtypes, drawn, rows = table
    names = [f"f{i}" for i in range(len(dtypes))]
    raw = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    values = {name: column_of(dtype, raw[name]) for name, dtype in zip(names, dtypes, strict=True)}
    nulls = {name: np.array([value is None for value in raw[name]], dtype=np.bool_) for name in names}
    codec = RowCodec(make_view(features=dict(zip(names, dtypes, strict=True))))
    origin = versions_of(drawn)
    packed = codec.encode(origin, values, nulls)
    read = codec.decode(packed)

    assert read.has_row.tolist() == [not one[4] for one in drawn]
    for field in ("event_ts", "created_ts", "seq", "run_id", "tombstone"):
        assert getattr(read.versions, field).tolist() == getattr(origin, field).tolist()
    for name in names:
        assert read.nulls[name].tolist() == (nulls[name] | ~read.has_row).tolist()
        kept = ~read.nulls[name]
        assert read.values[name].dtype == values[name].dtype
        if values[name].dtype == object:
            assert read.values[name][kept].tolist() == values[name][kept].tolist()
        else:
            assert read.values[name][kept].tobytes() == values[name][kept].tobytes()


@given(st.lists(st.tuples(TIMES, st.none() | TIMES, st.integers(0, 2**63 - 1)), min_size=2, max_size=8))
@example([(0, None, 0), (-1, 2**62, 5), (0, -(2**63) + 1, 0), (0, None, 1)])
@example([(2**32, 1, 0), (2**32 - 1, 1, 0), (-(2**32), 1, 0), (2**31, 1, 0)])
def test_2_1_bytes_rank_as_the_triple_with_created_nulls_first(triples: list[tuple[int, int | None, int]]) -> None:
    codec = RowCodec(make_view())
    drawn = [(*triple, 0, False) for triple in triples]
    rows = codec.encode(versions_of(drawn), {"x": np.zeros(len(drawn))}, {"x": np.zeros(len(drawn), dtype=np.bool_)})
    by_bytes = sorted(range(len(rows)), key=lambda i: rows[i][:RANK_BYTES])
    by_triple = sorted(range(len(rows)), key=lambda i: nulls_first(triples[i]))
    assert by_bytes == by_triple


@given(TIMES, st.none() | TIMES, st.integers(0, 2**63 - 1))
def test_2_3_a_rank_is_eight_unsigned_words(event: int, created: int | None, seq: int) -> None:
    codec = RowCodec(make_view())
    (row,) = codec.encode(versions_of([(event, created, seq, 0, False)]), {"x": np.zeros(1)}, {"x": np.array([True])})
    words = struct.unpack(">8I", row[:RANK_BYTES])
    assert (words[0] << 32 | words[1]) - 2**63 == event
    assert (words[2] << 32 | words[3]) - 2**63 == (NO_TIME if created is None else created)
    assert words[6] << 32 | words[7] == seq


def nulls_first(triple: tuple[int, int | None, int]) -> tuple[int, bool, int, int]:
    event, created, seq = triple
    return event, created is not None, created or 0, seq
