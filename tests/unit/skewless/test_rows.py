"""The packed row, read by struct at the offsets that its module draws."""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from skewless.contract.dtypes import DType
from skewless.contract.names import partition_hash
from skewless.contract.row_layout import is_intact
from skewless.contract.rows import NO_TIME, RowCodec, Versions, ViewRead, empty_read
from tests.worlds.plans import make_view

ALL = {f"c_{dtype}": dtype for dtype in DType}
VALUES: dict[str, Any] = {
    "c_int32": -(2**31),
    "c_int64": 2**53 + 1,
    "c_float32": 0.1,
    "c_float64": 0.1,
    "c_bool": True,
    "c_string": "Zürich",
    "c_bytes": b"\x00\xff",
    "c_timestamp": -1,
}


def versions(n: int = 1, *, event: int = 5, created: int = NO_TIME, seq: int = 0, tombstone: bool = False) -> Versions:
    return Versions(
        event_ts=np.full(n, event, dtype=np.int64),
        created_ts=np.full(n, created, dtype=np.int64),
        seq=np.full(n, seq, dtype=np.int64),
        run_id=np.full(n, 3, dtype=np.int64),
        tombstone=np.full(n, tombstone, dtype=np.bool_),
    )


def encode_one(codec: RowCodec, types: dict[str, DType], values: dict[str, Any], origin: Versions) -> bytes:
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, dtype in types.items():
        arrays[name] = np.empty(1, dtype=dtype.numpy)
        arrays[name][0] = (None if dtype.is_text else 0) if values[name] is None else values[name]
    nulls = {name: np.array([values[name] is None]) for name in types}
    (row,) = codec.encode(origin, arrays, nulls)
    return row


def test_a_row_lies_in_memory_as_drawn() -> None:
    view = make_view(features=ALL)
    row = encode_one(RowCodec(view), ALL, VALUES, versions(event=-2, created=9, seq=77, tombstone=True))
    event, created, partition, seq = struct.unpack_from(">QQQQ", row)
    assert (event, created, seq) == (2**63 - 2, 2**63 + 9, 77)
    assert partition == partition_hash(f"batch/v-{view.hash}")
    assert row[32:40] == bytes.fromhex(view.hash)
    assert int.from_bytes(row, "little") % (2**32 - 1) == 0
    assert row[40:44] != bytes(4)
    assert struct.unpack_from(">iBB", row, 44) == (3, 1, 1)
    assert row[50] == 0
    int32, int64, float32, float64, boolean, text_end, bytes_end, moment = struct.unpack_from("<iqfd?IIq", row, 51)
    assert (int32, int64, float64, boolean, moment) == (-(2**31), 2**53 + 1, 0.1, True, -1)
    assert float32 == struct.unpack("<f", struct.pack("<f", 0.1))[0]
    assert row[92 : 92 + text_end] == "Zürich".encode()
    assert row[92 + text_end : 92 + bytes_end] == b"\x00\xff"
    assert len(row) == 92 + bytes_end


def test_a_row_without_created_ranks_below_every_row_with_one() -> None:
    codec = RowCodec(make_view())
    none = encode_one(codec, {"x": DType.FLOAT64}, {"x": 1.0}, versions())
    least = encode_one(codec, {"x": DType.FLOAT64}, {"x": 1.0}, versions(created=NO_TIME + 1))
    assert none[:32] < least[:32]


def test_null_bits_reach_beyond_one_byte() -> None:
    types = {f"f{i}": DType.INT32 for i in range(20)}
    values = {name: None if i % 3 == 0 else i for i, name in enumerate(types)}
    codec = RowCodec(make_view(features=types))
    read = codec.decode([encode_one(codec, types, values, versions())])
    assert {name: None if read.nulls[name][0] else int(read.values[name][0]) for name in types} == values


def test_2_3_a_tombstone_reads_as_not_found_and_keeps_its_version() -> None:
    codec = RowCodec(make_view(features=ALL))
    read = codec.decode([encode_one(codec, ALL, VALUES, versions(tombstone=True, seq=8))])
    assert not read.has_row[0]
    assert all(read.nulls[name][0] for name in ALL)
    assert read.versions.tombstone[0]
    assert read.versions.seq[0] == 8


def is_blank(read: ViewRead, n: int) -> bool:
    return (
        read.has_row.tolist() == [False] * n
        and all(mask.tolist() == [True] * n for mask in read.nulls.values())
        and read.versions.seq.tolist() == [-1] * n
        and read.versions.event_ts.tolist() == [NO_TIME] * n
    )


@pytest.mark.parametrize("n", [0, 1, 3])
def test_absent_rows_read_as_nothing(n: int) -> None:
    view = make_view(features=ALL)
    read = RowCodec(view).decode([None] * n)
    assert read.available
    assert is_blank(read, n)
    assert is_blank(empty_read(view, n, available=False), n)
    assert not empty_read(view, n, available=False).available


def test_rows_and_absences_keep_their_places() -> None:
    codec = RowCodec(make_view(features={"s": DType.STRING}))
    row = encode_one(codec, {"s": DType.STRING}, {"s": "a"}, versions())
    read = codec.decode([None, row, None, row])
    assert read.has_row.tolist() == [False, True, False, True]
    assert read.values["s"].tolist() == [None, "a", None, "a"]


def test_no_rows_encode_to_no_rows() -> None:
    codec = RowCodec(make_view())
    assert codec.encode(versions(0), {"x": np.empty(0)}, {"x": np.empty(0, dtype=np.bool_)}) == []


def test_a_row_cut_short_or_altered_or_of_another_view_is_unanswered() -> None:
    codec = RowCodec(make_view(features=ALL))
    row = encode_one(codec, ALL, VALUES, versions())
    other = RowCodec(make_view("w", features=ALL))
    longer = row + b"x"
    old_format = row[:48] + b"\x02" + row[49:]
    for bad in (b"", row[:31], row[:60], row[:-1], longer, old_format, encode_one(other, ALL, VALUES, versions())):
        read = codec.decode([row, bad, None])
        assert read.unavailable is not None
        assert (read.unavailable.tolist(), read.has_row.tolist()) == ([False, True, False], [True, False, False])
        assert {name: read.values[name][0] for name in ALL} == VALUES


@pytest.mark.parametrize("types", [ALL, {"c_float64": DType.FLOAT64}, {}])
def test_each_bit_that_is_altered_is_noticed(types: dict[str, DType]) -> None:
    codec = RowCodec(make_view(features=types))
    row = encode_one(codec, types, VALUES, versions())
    assert codec.find_intact([row]).all()
    for bit in range(8 * len(row)):
        altered = bytearray(row)
        altered[bit // 8] ^= 1 << bit % 8
        assert codec.find_intact([row, bytes(altered), None]).tolist() == [True, False, True], bit


def test_a_row_without_its_checksum_is_noticed() -> None:
    codec = RowCodec(make_view(features=ALL))
    row = encode_one(codec, ALL, VALUES, versions())
    assert codec.find_intact([row[:40] + bytes(4) + row[44:], row]).tolist() == [False, True]


def test_rows_end_to_end_are_whole_where_each_is() -> None:
    """Of any lengths, short and long: one division, or a sum, proves them all."""
    chance = random.Random(5)
    for types in (ALL, {"c_float64": DType.FLOAT64}, {"c_bool": DType.BOOL}):
        codec = RowCodec(make_view(features=types))
        rows = [encode_one(codec, types, VALUES, versions(seq=chance.randrange(2**40))) for _ in range(200)]
        for n in (*range(1, 20), 200):
            joined = bytearray(b"".join(rows[:n]))
            assert is_intact(bytes(joined))
            joined[chance.randrange(len(joined))] ^= 1 << chance.randrange(8)
            assert not is_intact(bytes(joined)), n
    assert is_intact(b"")
