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


def _datatype(name: str, code: str) -> Datatype:
    dtype = np.dtype(code)
    kind = _KINDS[dtype.kind]
    limits = np.iinfo(dtype) if kind == "integer" else None
    return Datatype(
        name=name,
        kind=kind,
        numpy=dtype,
        size=0 if kind == "bytes" else dtype.itemsize,
        lowest=int(limits.min) if limits else 0,
        greatest=int(limits.max) if limits else 0,
    )


_KINDS: dict[str, Kind] = {"b": "boolean", "u": "integer", "i": "integer", "f": "float", "O": "bytes"}
_UNSIGNED = {"UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8"}
_SIGNED = {"INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8"}
_FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_CODES = {"BOOL": "?", **_UNSIGNED, **_SIGNED, **_FLOATS, "BYTES": "O"}
DATATYPES = {name: _datatype(name, code) for name, code in _CODES.items()}
BOOL, BYTES = DATATYPES["BOOL"], DATATYPES["BYTES"]
INT32, INT64 = DATATYPES["INT32"], DATATYPES["INT64"]
FP16, FP32, FP64 = (DATATYPES[name] for name in _FLOATS)


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
