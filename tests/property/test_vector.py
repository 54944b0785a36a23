"""SEMANTICS 6.2: the matrix has the same bits, whether numbers come as a block or column by column."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.dtypes import DType
from skewless.contract.rows import RowCodec, Versions
from skewless.contract.vector import Assembler
from tests.worlds.plans import make_plan, make_view

ODD = [0x7F800001, 0x7FC00001, 0x80000000, 0x7FF0000000000001, 0xFFF8000000000007, 1 << 63]  # NaN payloads, -0.0
BITS = st.integers(0, 2**64 - 1) | st.sampled_from(ODD)
TYPES = st.lists(st.sampled_from(list(DType)), min_size=1, max_size=9)
TTL = 10


def column(dtype: DType, bits: list[int]) -> npt.NDArray[Any]:
    """Return values of a type from random bits, every NaN payload among them."""
    if dtype.is_text:
        objects = np.empty(len(bits), dtype=object)
        objects[:] = [f"{bit % 3}".encode() if dtype is DType.BYTES else f"{bit % 3}" for bit in bits]
        return objects
    raw = np.array(bits, dtype=np.uint64)
    if dtype is DType.BOOL:
        return (raw % 2).astype(np.bool_)
    width = np.dtype(dtype.numpy).itemsize
    return np.ascontiguousarray(raw.view(np.uint8).reshape(-1, 8)[:, :width]).view(dtype.numpy).ravel()


@given(TYPES, st.lists(st.tuples(BITS, st.booleans(), st.booleans(), st.integers(-2, 14)), max_size=6), st.data())
def test_6_2_a_block_gives_the_bits_of_columns(
    types: list[DType], rows: list[tuple[int, bool, bool, int]], data: st.DataObject
) -> None:
    names = [f"f{i}" for i in range(len(types))]
    view = make_view(features=dict(zip(names, types, strict=True)), ttl_us=TTL)
    order = data.draw(st.permutations(names))
    plan = make_plan([f"v.{name}" for name in order], views=[view])
    assembler = Assembler(plan, {f"v__{name}": ["1", "2"] for name in names})
    n = len(rows)
    origin = replace(
        Versions.empty(n),
        event_ts=np.array([row[3] for row in rows], dtype=np.int64),
        seq=np.arange(n, dtype=np.int64),
        tombstone=np.array([row[2] for row in rows], dtype=np.bool_),
    )
    values = {name: column(dtype, [row[0] for row in rows]) for name, dtype in zip(names, types, strict=True)}
    nulls = {name: np.array([row[1] and i % 2 == 0 for row in rows], dtype=np.bool_) for i, name in enumerate(names)}
    codec = RowCodec(view)
    packed: list[bytes | None] = [*codec.encode(origin, values, nulls), None]
    read = codec.decode(packed)
    t = np.full(n + 1, TTL, dtype=np.int64)
    assert read.block is not None
    whole = assembler.assemble(t, {"v": read}, {}).matrix
    apart = assembler.assemble(t, {"v": replace(read, block=None)}, {}).matrix
    assert whole.tobytes() == apart.tobytes()
