"""The checksum of packed rows: the ones' complement sum of 32-bit words (RFC 1071, with words twice as long).

A row that holds its sum is a multiple of 2^32 - 1, read as a little-endian number. So are rows laid end to end: one
division proves them all. Any single bit that is altered is noticed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MODULUS = 2**32 - 1
_WORD = 4
_FEW_BYTES = 4_096  # up to here one division is faster than numpy


def is_whole(data: bytes) -> bool:
    """Say whether some bytes hold their sum, or are several such pieces end to end.

    >>> is_whole(bytes([1, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF])), is_whole(bytes([3, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF]))
    (True, False)
    """
    if len(data) <= _FEW_BYTES:
        return int.from_bytes(data, "little") % MODULUS == 0
    end = len(data) // _WORD * _WORD
    words = int(np.frombuffer(data, "<u4", end // _WORD).sum(dtype=np.uint64))
    return (words + int.from_bytes(data[end:], "little")) % MODULUS == 0


def complements(fixed: npt.NDArray[np.void], heaps: Sequence[memoryview] | None = None) -> npt.NDArray[np.uint32]:
    """Return what makes rows whole, uint32, never 0; to be added at a multiple of four bytes.

    Args:
        fixed: the rows, the place of the sum 0.
        heaps: what stands behind each of them.
    """
    n, size = len(fixed), fixed.dtype.itemsize
    raw = np.zeros((n, -(-size // _WORD) * _WORD), dtype=np.uint8)
    raw[:, :size] = fixed.view(np.uint8).reshape(n, size)
    sums = raw.view("<u4").sum(axis=1, dtype=np.uint64) % MODULUS
    if heaps is not None:
        weight = pow(256, size, MODULUS)
        tails = [int.from_bytes(heap, "little") % MODULUS * weight % MODULUS for heap in heaps]
        sums = (sums + np.array(tails, dtype=np.uint64)) % MODULUS
    found: npt.NDArray[np.uint32] = (MODULUS - sums).astype(np.uint32)
    return found
