"""Tensors with JSON data, and with binary data: little-endian, row by row, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from math import isnan, prod
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from skewless.contract.errors import RequestError
from skewless.contract.render import render_value
from skewless_oip.datatypes import BOOL, BYTES, FP64, Datatype, Kind

_TYPES: dict[Kind, tuple[frozenset[type], str]] = {
    "boolean": (frozenset({bool}), "send true or false"),
    "integer": (frozenset({int}), "send an integer"),
    "float": (frozenset({float, int, type(None)}), "send a number, or null for a missing value"),
    "bytes": (frozenset({str, type(None)}), "send a string; or binary data for bytes that are not UTF-8"),
}
_LENGTH = Struct("<I")


class JsonTensor(NamedTuple):
    """A tensor of a request whose data is in the JSON.

    Args:
        elements: one list, row by row, as long as the shape requires; types of elements are not checked yet.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    elements: Sequence[Any]

    @classmethod
    def of(cls, name: str, datatype: Datatype, shape: tuple[int, ...], data: Sequence[Any]) -> JsonTensor:
        """Return a tensor from JSON data: one flat list, or lists nested like the shape.

        >>> from skewless_oip.datatypes import INT64
        >>> JsonTensor.of("x", INT64, (2, 2), [[1, 2], [3, 4]]).elements
        [1, 2, 3, 4]

        Raises:
            RequestError: the number or the nesting of the elements does not match the shape.
        """
        if len(shape) > 1 and data and type(data[0]) is list:
            data = _flatten(name, data, shape)
        if len(data) != prod(shape):
            raise RequestError(
                f"input {name!r}",
                f"has {len(data)} elements, which does not match its shape",
                value=shape,
                fix="send all elements",
            )
        return cls(name, datatype, shape, data)

    def values(self) -> list[Any]:
        """Return the elements as Python values: numbers, booleans or strings; missing and NaN are None.

        Raises:
            RequestError: an element does not have the datatype.
        """
        elements = self._check_elements()
        if self.datatype.kind != "float":
            return list(elements)
        if self.datatype is not FP64:
            elements = self._floats(elements).tolist()
        return [None if value is None or isnan(value) else value for value in elements]

    def array(self) -> npt.NDArray[Any]:
        """Return an array with the tensor's type and shape; a missing float is NaN, BYTES are objects (bytes or None).

        Raises:
            RequestError: an element does not have the datatype.
        """
        elements = self._check_elements()
        if self.datatype.kind == "float":
            return self._floats(elements).reshape(self.shape)
        if self.datatype is BYTES:
            elements = [None if text is None else text.encode() for text in elements]
        return np.array(elements, dtype=self.datatype.numpy).reshape(self.shape)

    def _check_elements(self) -> Sequence[Any]:
        allowed, fix = _TYPES[self.datatype.kind]
        elements = self.elements
        # Exact types: a bool must not pass as an integer, as it would with `isinstance`.
        if not allowed.issuperset(map(type, elements)):
            raise self._element_error(next(i for i, value in enumerate(elements) if type(value) not in allowed), fix)
        if self.datatype.kind == "integer" and elements:
            self._check_range(elements)
        elif self.datatype is BYTES:
            self._check_text(elements)
        return elements

    def _check_range(self, elements: Sequence[int]) -> None:
        lowest, greatest = self.datatype.lowest, self.datatype.greatest
        if min(elements) < lowest or max(elements) > greatest:
            at = next(i for i, value in enumerate(elements) if not lowest <= value <= greatest)
            raise self._element_error(at, f"send an integer from {lowest} to {greatest}")

    def _check_text(self, elements: Sequence[str | None]) -> None:
        for i, text in enumerate(elements):
            if text is not None and not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise self._element_error(i, "send text without lone surrogates") from None

    def _floats(self, elements: Sequence[Any]) -> npt.NDArray[Any]:
        try:
            wide = np.array(elements, dtype=np.float64)
        except OverflowError:
            greatest = np.finfo(np.float64).max
            at = next(i for i, value in enumerate(elements) if type(value) is int and abs(value) > greatest)
            raise self._element_error(at, "send a number in the range of float64") from None
        if self.datatype.size == wide.itemsize:
            return wide
        with np.errstate(over="ignore"):
            narrow = wide.astype(self.datatype.numpy)
        # The cast turns a number beyond the narrow range into an infinity.
        overflows = np.flatnonzero(np.isinf(narrow) & np.isfinite(wide))
        if len(overflows):
            raise self._element_error(int(overflows[0]), f"send a number in the range of {self.datatype.name}")
        return narrow

    def _element_error(self, at: int, fix: str) -> RequestError:
        problem = f"element {at} is not a valid {self.datatype.name}"
        return RequestError(f"input {self.name!r}", problem, value=self.elements[at], fix=fix)


def json_data(datatype: Datatype, array: npt.NDArray[Any]) -> bytes:
    """Return the data of a tensor as one flat JSON list; NaN and infinities are null.

    >>> from skewless_oip.datatypes import FP64
    >>> json_data(FP64, np.array([[0.5, np.nan]]))
    b'[0.5,null]'

    Args:
        array: of the datatype; BYTES: objects, each bytes or None.

    Raises:
        RequestError: bytes are not UTF-8.
    """
    if datatype is not BYTES:
        return orjson.dumps(array.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)
    try:
        return orjson.dumps([None if value is None else value.decode() for value in array.ravel().tolist()])
    except UnicodeDecodeError:
        raise RequestError("output", "has bytes that are not UTF-8", fix="request binary data") from None


def _flatten(name: str, data: Sequence[Any], shape: tuple[int, ...]) -> Sequence[Any]:
    for length in shape[1:]:
        if any(type(item) is not list or len(item) != length for item in data):
            raise RequestError(
                f"input {name!r}",
                "is not nested like its shape",
                value=shape,
                fix="nest the lists like the shape, or send a flat list",
            )
        data = list(chain.from_iterable(data))
    return data


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
        self._check_booleans()
        values: list[Any] = np.frombuffer(self.data, dtype=self.datatype.numpy).tolist()
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
        self._check_booleans()
        # A copy, because the data may start at any offset of the body: numpy is slow on unaligned arrays.
        return np.frombuffer(self.data, dtype=self.datatype.numpy).reshape(self.shape).copy()

    def _check_booleans(self) -> None:
        if self.datatype is BOOL and max(self.data, default=0) > 1:
            raise self._error("has a BOOL that is neither 0 nor 1", fix="send one byte, 0 or 1")

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
