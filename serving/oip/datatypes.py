"""Datatypes of tensors in the Open Inference Protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from skewless.contract.errors import RequestError

Kind = Literal["boolean", "integer", "float", "bytes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Datatype:
    """Encoding of one element of a tensor.

    Args:
        numpy: its little-endian type; BYTES are objects.
        size: bytes of one element in binary data; BYTES: 0, since each element has a length of its own.
        lowest: the smallest integer; 0 for other kinds.
        greatest: the largest integer; 0 for other kinds.
    """

    name: str
    kind: Kind
    numpy: np.dtype[Any]
    size: int
    lowest: int = 0
    greatest: int = 0


def _integer(name: str, code: str) -> Datatype:
    dtype = np.dtype(code)
    limits = np.iinfo(dtype)
    return Datatype(
        name=name, kind="integer", numpy=dtype, size=dtype.itemsize, lowest=int(limits.min), greatest=int(limits.max)
    )


def _float(name: str, code: str) -> Datatype:
    dtype = np.dtype(code)
    return Datatype(name=name, kind="float", numpy=dtype, size=dtype.itemsize)


BOOL = Datatype(name="BOOL", kind="boolean", numpy=np.dtype("?"), size=1)
INT32 = _integer("INT32", "<i4")
INT64 = _integer("INT64", "<i8")
FP16 = _float("FP16", "<f2")
FP32 = _float("FP32", "<f4")
FP64 = _float("FP64", "<f8")
BYTES = Datatype(name="BYTES", kind="bytes", numpy=np.dtype("O"), size=0)

DATATYPES = {
    datatype.name: datatype
    for datatype in (
        BOOL,
        _integer("UINT8", "<u1"),
        _integer("UINT16", "<u2"),
        _integer("UINT32", "<u4"),
        _integer("UINT64", "<u8"),
        _integer("INT8", "<i1"),
        _integer("INT16", "<i2"),
        INT32,
        INT64,
        FP16,
        FP32,
        FP64,
        BYTES,
    )
}


def find_datatype(tensor: str, name: object) -> Datatype:
    """Return the datatype of an input.

    >>> find_datatype("x", "FP64").size
    8

    Raises:
        RequestError: the name is unknown.
    """
    known_datatype = DATATYPES.get(name) if isinstance(name, str) else None
    if known_datatype is None:
        problem, names = "has an unknown datatype", ", ".join(DATATYPES)
        raise RequestError(f"input {tensor!r}", problem, value=name, fix=f"send one of {names}")
    return known_datatype
