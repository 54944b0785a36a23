"""The checksum of packed rows: the ones' complement sum of 32-bit words (RFC 1071, with words twice as long).

A row with its checksum, read as a little-endian number, is a multiple of 2^32 - 1. So are several rows end to end: one
division checks all of them. The checksum detects any single changed bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MODULUS = 2**32 - 1
_WORD = 4
_FEW_BYTES = 4_096  # size up to which one division of a Python integer is faster than numpy


def is_intact(data: bytes) -> bool:
    """Say whether the checksum of some bytes is right; they may be several rows end to end.

    >>> is_intact(bytes([1, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF])), is_intact(bytes([3, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF]))
    (True, False)
    """
    if len(data) <= _FEW_BYTES:
        return int.from_bytes(data, "little") % MODULUS == 0
    end = len(data) // _WORD * _WORD
    words = int(np.frombuffer(data, "<u4", end // _WORD).sum(dtype=np.uint64))
    return (words + int.from_bytes(data[end:], "little")) % MODULUS == 0


def compute_checksums(fixed: npt.NDArray[np.void], heaps: Sequence[memoryview] | None = None) -> npt.NDArray[np.uint32]:
    """Return the checksums of rows, uint32, never 0; their field must lie at a multiple of four bytes.

    Args:
        fixed: the rows without their heaps; the checksum field is 0.
        heaps: the text values that follow each row.
    """
    n, size = len(fixed), fixed.dtype.itemsize
    raw = np.zeros((n, -(-size // _WORD) * _WORD), dtype=np.uint8)
    raw[:, :size] = fixed.view(np.uint8).reshape(n, size)
    sums = raw.view("<u4").sum(axis=1, dtype=np.uint64) % MODULUS
    if heaps is not None:
        # A heap starts after `size` bytes, so its number counts 256^size times in the number of the whole row.
        weight = pow(256, size, MODULUS)
        tails = [int.from_bytes(heap, "little") % MODULUS * weight % MODULUS for heap in heaps]
        sums = (sums + np.array(tails, dtype=np.uint64)) % MODULUS
    # Between 1 and 2^32 - 1: 0 marks a row of an older release, which has no checksum.
    checksums: npt.NDArray[np.uint32] = (MODULUS - sums).astype(np.uint32)
    return checksums
