"""Virtual buckets of entities: an own hash of an entity's canonical key bytes, equal in every engine.

Engines hash by the type of a column, or with a salt; this hash depends only on the bytes that the online key has.
The number of buckets is in the plan, so that a bucket means the same entities everywhere and always.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import filled_numbers
from skewless.contract.keys import join_keys
from skewless.contract.status import Int64Array
from skewless.contract.windows.sketch import mix_bits

_WORD = 8
_FEW = 10_000


def find_buckets(columns: Sequence[pa.Array | pa.ChunkedArray], buckets: int) -> Int64Array:
    """Return the bucket of each row of key columns, ``0 <= bucket < buckets``, shape ``(n,)``.

    A row with a null in its key is in bucket 0; it has no features, wherever it is computed.

    Args:
        columns: in the order of the view's keys; integers, text or bytes.

    >>> find_buckets([pa.array([5, 6, None])], 4_096).tolist()
    [830, 2842, 0]
    >>> find_buckets([pa.array(["5", b"6", None], pa.binary())], 4_096).tolist()
    [830, 2842, 0]
    """
    arrays = [column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column for column in columns]
    if len(arrays) == 1 and len(arrays[0]) > _FEW:
        # Most keys have several rows: text is built, and hashed, once per key.
        encoded = arrays[0].dictionary_encode("encode")
        found: Int64Array = _find_buckets([encoded.dictionary], buckets)[filled_numbers(encoded.indices, 0)]
        return found
    return _find_buckets(arrays, buckets)


def _find_buckets(arrays: Sequence[pa.Array], buckets: int) -> Int64Array:
    keys = join_keys(b"", arrays)
    found = (_hash_bytes(keys) % np.uint64(buckets)).astype(np.int64)
    if keys.null_count:
        found[np.asarray(keys.is_null())] = 0
    return found


def split_buckets(buckets: int, parts: int) -> list[tuple[int, int]]:
    """Return at most ``parts`` ranges ``first, end`` of about equal size that cover all buckets.

    >>> split_buckets(7, 3)
    [(0, 2), (2, 4), (4, 7)]
    """
    count = max(1, min(parts, buckets))
    edges = [buckets * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def _hash_bytes(keys: pa.LargeBinaryArray) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each value's bytes: its 8-byte words, zero-padded, and its length, mixed in turn."""
    offsets = np.frombuffer(keys.buffers()[1], np.int64)[keys.offset : keys.offset + len(keys) + 1]
    data = keys.buffers()[2]
    # Padded, so that a whole word can be read from the last byte of the last value.
    raw = np.concatenate([np.frombuffer(data or b"", np.uint8), np.zeros(_WORD, np.uint8)])
    start, length = offsets[:-1], np.diff(offsets)
    hashes = mix_bits(length.astype(np.uint64))
    words = np.lib.stride_tricks.as_strided(raw, (len(raw) - _WORD + 1, _WORD), (1, 1))
    for at in range(0, int(length.max(initial=0)), _WORD):
        rows = np.flatnonzero(length > at)
        word = np.ascontiguousarray(words[start[rows] + at]).view("<u8").ravel()
        # Of the last word, only the bytes of the value count.
        excess = np.maximum(0, at + _WORD - length[rows]).astype(np.uint64) * np.uint64(8)
        hashes[rows] = mix_bits(hashes[rows] ^ (word << excess))
    return hashes
