"""Tensors with binary data: little-endian, row by row, without padding."""

from __future__ import annotations

from math import isnan, prod
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.errors import RequestError
from skewless.contract.render import render_value
from skewless.serving.oip.datatypes import BOOL, BYTES, Datatype

_LENGTH = Struct("<I")


class BinaryTensor(NamedTuple):
    """A tensor of a request whose data follows the JSON.

    Args:
        data: as long as the shape requires; elements of BYTES are not parsed yet.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    data: memoryview

    @classmethod
    def of(cls, name: str, datatype: Datatype, shape: tuple[int, ...], data: memoryview) -> BinaryTensor:
        """Return a tensor from its part of the body.

        Raises:
            RequestError: the data is longer or shorter than the shape requires.
        """
        expected = prod(shape) * datatype.size
        if datatype.size and len(data) != expected:
            raise RequestError(
                f"input {name!r}",
                f"has {len(data)} bytes of binary data, but its shape requires {expected}",
                value=shape,
                fix="send all elements, and their length as binary_data_size",
            )
        return cls(name, datatype, shape, data)

    def values(self) -> list[Any]:
        """Return the elements as Python values: numbers, booleans or strings; NaN is None.

        Raises:
            RequestError: BYTES are truncated or not UTF-8, or a BOOL is neither 0 nor 1.
        """
        if self.datatype is BYTES:
            return [self._text(i, element) for i, element in enumerate(self._elements())]
        values = self.array().ravel().tolist()
        if self.datatype.kind != "float":
            return values
        return [None if isnan(value) else value for value in values]

    def array(self) -> npt.NDArray[Any]:
        """Return a new array with the tensor's type and shape; BYTES are objects (bytes).

        Raises:
            RequestError: BYTES are truncated, or a BOOL is neither 0 nor 1.
        """
        if self.datatype is BYTES:
            return np.array(self._elements(), dtype=object).reshape(self.shape)
        if self.datatype is BOOL and max(self.data, default=0) > 1:
            raise self._error("has a BOOL that is neither 0 nor 1", fix="send one byte, 0 or 1")
        # A copy, because the data may start at any offset of the body: numpy is slow on unaligned arrays.
        return np.frombuffer(self.data, dtype=self.datatype.numpy).reshape(self.shape).copy()

    def _elements(self) -> list[bytes]:
        data, end, at = self.data, len(self.data), 0
        elements: list[bytes] = []
        for _ in range(prod(self.shape)):
            start = at + _LENGTH.size
            if start > end:
                raise self._truncated_error(len(elements))
            at = start + _LENGTH.unpack_from(data, at)[0]
            if at > end:
                raise self._truncated_error(len(elements))
            elements.append(bytes(data[start:at]))
        if at != end:
            raise self._error("has bytes after its last element", fix="send as many elements as the shape requires")
        return elements

    def _truncated_error(self, at: int) -> RequestError:
        return self._error(f"is truncated in element {at}", fix="send 4 bytes of length before each element")

    def _text(self, at: int, element: bytes) -> str:
        try:
            return element.decode()
        except UnicodeDecodeError:
            raise self._error(f"has element {at} not in UTF-8: {render_value(element)}", fix="send UTF-8") from None

    def _error(self, problem: str, fix: str) -> RequestError:
        return RequestError(f"input {self.name!r}", problem, fix=fix)


def binary_data(datatype: Datatype, array: npt.NDArray[Any]) -> bytes:
    r"""Return the data of a tensor as binary; missing BYTES are empty.

    >>> binary_data(BYTES, np.array([b"ab", None], dtype=object))
    b'\x02\x00\x00\x00ab\x00\x00\x00\x00'

    Args:
        array: of the datatype; BYTES: objects, each bytes or None.
    """
    if datatype is not BYTES:
        return array.astype(datatype.numpy, copy=False).tobytes()
    elements = [value or b"" for value in array.ravel().tolist()]
    return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))
