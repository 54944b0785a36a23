"""Constants among Arrow's binary columns."""

from __future__ import annotations

from functools import cache

import pyarrow as pa


@cache
def constant(piece: bytes) -> pa.LargeBinaryScalar:
    """Return bytes as a scalar that goes with large binary columns.

    Made when it is first needed: making one loads pandas, which the server does without.

    >>> constant(b"$").as_py()
    b'$'
    """
    return pa.scalar(piece, pa.large_binary())
