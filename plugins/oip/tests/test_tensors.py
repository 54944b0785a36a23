"""Tensors come through unchanged, in JSON and in binary, in requests and in replies; broken ones are refused."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from skewless.contract.errors import RequestError
from skewless_oip.conversion import ReplyTensor, encode_reply
from skewless_oip.datatypes import BYTES, DATATYPES, Datatype
from skewless_oip.request import InferRequest, parse_request

SHAPES = nps.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4)
NUMBERS = [datatype for datatype in DATATYPES.values() if datatype is not BYTES]
TEXT = st.text(max_size=5)


@st.composite
def tensors(draw: st.DrawFn, finite: bool = False) -> tuple[Datatype, npt.NDArray[Any]]:  # noqa: FBT001, FBT002
    """A datatype and an array of it; BYTES are objects."""
    datatype = draw(st.sampled_from(list(DATATYPES.values())))
    shape = draw(SHAPES)
    if datatype is BYTES:
        elements = draw(st.lists(TEXT.map(str.encode), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        array = np.empty(len(elements), dtype=object)
        array[:] = elements
        return datatype, array.reshape(shape)
    elements_of = nps.from_dtype(datatype.numpy, allow_infinity=False if finite else None)
    return datatype, draw(nps.arrays(datatype.numpy, shape, elements=elements_of))


def same(one: npt.NDArray[Any], two: npt.NDArray[Any]) -> bool:
    """Say whether two arrays are equal to the bit; one NaN is as good as another."""
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    if one.dtype.kind != "f":
        return bool((one == two).all())
    return bool(((one == two) & (np.signbit(one) == np.signbit(two)) | (np.isnan(one) & np.isnan(two))).all())


def packed(datatype: Datatype, array: npt.NDArray[Any]) -> bytes:
    """The binary data as the protocol describes it."""
    if datatype is not BYTES:
        return array.astype(datatype.numpy).tobytes()
    return b"".join(struct.pack("<I", len(item)) + item for item in array.ravel().tolist())


def plain(array: npt.NDArray[Any]) -> Any:  # noqa: ANN401 - nested lists
    """The JSON data as ``json`` writes it, nested."""
    texts = np.vectorize(lambda item: item.decode(), otypes=[object])(array) if array.dtype == object else array
    return texts.tolist() if array.size else np.empty(array.shape, dtype=object).tolist()


def ask(datatype: Datatype, shape: tuple[int, ...], **more: object) -> dict[str, object]:
    return {"inputs": [{"name": "x", "shape": list(shape), "datatype": datatype.name, **more}]}


def parsed(datatype: Datatype, shape: tuple[int, ...], data: object) -> npt.NDArray[Any]:
    return parse_request(json.dumps(ask(datatype, shape, data=data)).encode()).inputs["x"].array()


@given(tensors())
def test_json_data_is_read_nested_and_flat_nan_and_infinities_included(
    tensor: tuple[Datatype, npt.NDArray[Any]],
) -> None:
    datatype, array = tensor
    if array.ndim:
        assert same(parsed(datatype, array.shape, plain(array)), array)
    assert same(parsed(datatype, array.shape, plain(array.reshape(-1))), array)


@given(tensors())
def test_binary_data_is_read(tensor: tuple[Datatype, npt.NDArray[Any]]) -> None:
    datatype, array = tensor
    data = packed(datatype, array)
    text = json.dumps(ask(datatype, array.shape, parameters={"binary_data_size": len(data)})).encode()
    assert same(parse_request(text + data, len(text)).inputs["x"].array(), array)


@given(st.lists(st.tuples(tensors(finite=True), st.booleans()), max_size=4))
def test_a_reply_says_what_was_put_in(asked: list[tuple[tuple[Datatype, npt.NDArray[Any]], bool]]) -> None:
    outputs = [ReplyTensor(f"y{i}", *tensor, binary) for i, (tensor, binary) in enumerate(asked)]
    body, length = encode_reply(b'{"model_name":"m",', outputs)
    assert (length is None) == (not any(output.binary for output in outputs))
    found, rest = json.loads(body[:length]), body[length:] if length else b""
    for item, output in zip(found["outputs"], outputs, strict=True):
        assert (item["name"], item["datatype"], item["shape"]) == (
            output.name,
            output.datatype.name,
            list(output.array.shape),
        )
        if output.binary:
            size = item["parameters"]["binary_data_size"]
            assert rest[:size] == packed(output.datatype, output.array)
            rest = rest[size:]
        else:
            assert same(parsed(output.datatype, output.array.shape, item["data"]), output.array)
    assert not rest


@given(tensors())
def test_values_are_the_elements_and_none_where_missing(tensor: tuple[Datatype, npt.NDArray[Any]]) -> None:
    datatype, array = tensor
    data = packed(datatype, array)
    text = json.dumps(ask(datatype, array.shape, parameters={"binary_data_size": len(data)})).encode()
    expected = [item.decode() if isinstance(item, bytes) else item for item in array.ravel().tolist()]
    expected = [None if item != item else item for item in expected]  # noqa: PLR0124 - NaN
    assert parse_request(text + data, len(text)).inputs["x"].values() == expected
    flat = json.dumps(ask(datatype, array.shape, data=plain(array.reshape(-1)))).encode()
    assert parse_request(flat).inputs["x"].values() == expected


@given(tensors(), st.integers(1, 9))
def test_binary_data_that_is_cut_short_or_goes_on_is_refused(
    tensor: tuple[Datatype, npt.NDArray[Any]], by: int
) -> None:
    datatype, array = tensor
    data = packed(datatype, array)
    text = json.dumps(ask(datatype, array.shape, parameters={"binary_data_size": len(data)})).encode()
    with pytest.raises(RequestError, match="has bytes after its last tensor"):
        parse_request(text + data + b"\0" * by, len(text))
    if len(data) >= by:
        with pytest.raises(RequestError, match="is truncated"):
            parse_request(text + data[:-by], len(text))
        shorter = json.dumps(ask(datatype, array.shape, parameters={"binary_data_size": len(data) - by})).encode()
        with pytest.raises(RequestError, match=r"shape requires|is truncated|has bytes after"):
            consume(parse_request(shorter + data[:-by], len(shorter)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(list(DATATYPES)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data_size", "binary_data"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["id", "inputs", "outputs", "parameters"]), JSON | st.lists(JSON, max_size=3))
    | JSON,
    st.binary(max_size=9),
    st.none() | st.integers(0, 40),
)
@example({"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [10**400]}]}, b"", None)
@example({"inputs": [{"name": "x", "shape": [2**62, 4], "datatype": "BYTES", "data": []}]}, b"", None)
@example({"inputs": [{"name": "x", "shape": [True], "datatype": "BOOL", "data": [1]}]}, b"", None)
def test_whatever_comes_is_read_or_refused(found: object, rest: bytes, length: int | None) -> None:
    body = json.dumps(found).encode() + rest
    with contextlib.suppress(RequestError):
        request = parse_request(body, length)
        consume(request)


def consume(request: InferRequest) -> None:
    """Look at all the elements of a request."""
    for tensor in request.inputs.values():
        assert tensor.array().shape == tensor.shape
        assert len(tensor.values()) == tensor.array().size
