"""Binary scalars that Arrow's compute functions combine with large binary columns."""

from __future__ import annotations

from functools import cache

import pyarrow as pa


@cache
def binary_scalar(data: bytes) -> pa.LargeBinaryScalar:
    """Return bytes as a scalar of the type of large binary columns.

    Created lazily: `pa.scalar` imports pandas, which the server must not load.

    >>> binary_scalar(b"$").as_py()
    b'$'
    """
    return pa.scalar(data, pa.large_binary())
