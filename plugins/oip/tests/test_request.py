from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from skewless.contract.errors import RequestError
from skewless_oip.request import parse_request

X = {"name": "x", "shape": [2], "datatype": "INT64", "data": [1, 2]}


def parse(found: object, rest: bytes = b"") -> Any:  # noqa: ANN401 - what is asked for is looked at
    text = json.dumps(found).encode()
    return parse_request(text + rest, len(text) if rest else None)


def test_a_request_says_what_it_asks() -> None:
    request = parse(
        {
            "id": "42",
            "parameters": {"timeout": 7, "binary_data_output": True},
            "inputs": [X],
            "outputs": [{"name": "score"}, {"name": "decision", "parameters": {"binary_data": False}}],
        }
    )
    assert (request.id, request.parameters["timeout"], request.binary) == ("42", 7, True)
    assert request.outputs == {"score": True, "decision": False}
    assert request.inputs["x"].values() == [1, 2]


def test_what_clients_send_as_null_is_as_good_as_nothing() -> None:
    data = np.array([1, 2], dtype="<i8").tobytes()
    item = {**X, "data": None, "parameters": {"binary_data_size": len(data)}}
    request = parse({"id": None, "parameters": None, "inputs": [item], "outputs": None}, data)
    assert (request.id, request.parameters, request.outputs, request.binary) == (None, {}, {}, False)
    assert request.inputs["x"].array().tolist() == [1, 2]


@pytest.mark.parametrize("text", ["NaN", "null", "Infinity", "-Infinity"])
def test_nan_and_infinities_are_understood_which_json_does_not_know(text: str) -> None:
    body = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [%b]}]}' % text.encode()
    value = parse_request(body).inputs["x"].array()[0]
    assert str(value) == {"NaN": "nan", "null": "nan", "Infinity": "inf", "-Infinity": "-inf"}[text]


@pytest.mark.parametrize(
    ("datatype", "data", "message"),
    [
        ("INT8", [1, 128], "element 1 is not a valid INT8 .got 128.*from -128 to 127"),
        ("UINT64", [0, -1], "element 1 is not a valid UINT64"),
        ("INT64", [1.0, 2], "element 0.*an integer"),
        ("INT64", [1, True], "element 1.*an integer"),
        ("INT64", [1, None], "element 1.*an integer"),
        ("BOOL", [True, 0], "element 1.*true or false"),
        ("FP64", [1.5, "2"], "element 1.*a number, or null"),
        ("FP64", [True, 2], "element 0.*a number, or null"),
        ("FP32", [1e39, 2], "element 0 is not a valid FP32.*in the range of FP32"),
        ("FP16", [0, 1e5], "element 1 is not a valid FP16"),
        ("BYTES", ["a", 1], "element 1.*a string"),
        ("INT64", [1], "has 1 elements"),
        ("INT64", [[1], [2]], "element 0.*an integer"),
        ("INT64", {"a": 1}, "has no list of data"),
        ("BF16", [1, 2], "has an unknown datatype.*BF16.*FP16"),
        (None, [1, 2], "has an unknown datatype"),
        ([], [1, 2], "has an unknown datatype"),
    ],
)
def test_data_that_is_not_of_its_datatype_and_shape_is_refused(datatype: object, data: object, message: str) -> None:
    with pytest.raises(RequestError, match=f"input 'x'.*{message}"):
        parse({"inputs": [{"name": "x", "shape": [2], "datatype": datatype, "data": data}]}).inputs["x"].array()


@pytest.mark.parametrize("data", [[[1, 2], [3]], [[1, 2, 3], [4]], [[1, 2], 3, 4], [[1, 2]], [[[1], [2]], [[3], [4]]]])
def test_ragged_data_is_refused(data: object) -> None:
    with pytest.raises(RequestError, match="input 'x'"):
        parse({"inputs": [{"name": "x", "shape": [2, 2], "datatype": "INT64", "data": data}]}).inputs["x"].values()


@pytest.mark.parametrize("shape", [None, 2, [2.0], [-1, 2], [0], [True, 2], ["2"], [1] * 9])
def test_a_shape_is_a_list_of_lengths(shape: object) -> None:
    with pytest.raises(RequestError, match="input 'x': has no shape"):
        parse({"inputs": [{**X, "shape": shape}]})


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "is not a JSON object"),
        ({}, "has no inputs"),
        ({"inputs": []}, "has no inputs"),
        ({"inputs": [1]}, "without a name"),
        ({"inputs": [X, X]}, "input 'x': is duplicate"),
        ({"inputs": [X], "id": 42}, "'id'.*is not a string"),
        ({"inputs": [X], "parameters": [1]}, "request parameters: are not an object"),
        ({"inputs": [X], "parameters": {"binary_data_output": 1}}, "'binary_data_output'.*not a boolean"),
        ({"inputs": [X], "outputs": {"name": "score"}}, "'outputs'.*not a list of names"),
        ({"inputs": [X], "outputs": [{"name": 1}]}, "'outputs'.*not a list of names"),
        ({"inputs": [X], "outputs": [{"name": "a"}, {"name": "a"}]}, "output 'a': is requested twice"),
        ({"inputs": [X], "outputs": [{"name": "a", "parameters": {"classification": 2}}]}, "classification"),
        ({"inputs": [{**X, "parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
        ({"inputs": [{**X, "parameters": {"binary_data_size": 16}}]}, "has no list of data"),
        ({"inputs": [{**X, "data": None, "parameters": {"binary_data_size": 16}}]}, "is truncated: has 0 of its 16"),
        ({"inputs": [{**X, "data": None, "parameters": {"binary_data_size": -1}}]}, "is not a length"),
        ({"inputs": [{**X, "data": None, "parameters": {"binary_data_size": "16"}}]}, "is not a length"),
    ],
)
def test_a_request_of_another_shape_is_refused(found: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse(found)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"inputs": NaN', b"[" * 5_000, b"[" * 500_000 + b"NaN", b"\xff\xfe", b'"\\ud800"', b"1e400"]
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError, match=r"request body: is (not|nested too deep)"):
        parse_request(body)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x02\0\0\0ab", "is truncated in element 1"),
        (b"\x02\0\0\0ab\x09\0\0\0c", "is truncated in element 1"),
        (b"\x01\0\0\0a\x01\0\0\0b\0", "has bytes after its last element"),
        (b"\xff\xff\xff\xff", "is truncated in element 0"),
        (b"\x01\0\0\0\xff\0\0\0\0", "has element 0 not in UTF-8"),
    ],
)
def test_broken_bytes_are_refused(data: bytes, message: str) -> None:
    item = {"name": "x", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
    with pytest.raises(RequestError, match=f"input 'x': {message}"):
        parse({"inputs": [item]}, data).inputs["x"].values()


def test_a_truth_value_in_binary_is_zero_or_one() -> None:
    item = {"name": "x", "shape": [2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}}
    assert parse({"inputs": [item]}, b"\x01\x00").inputs["x"].values() == [True, False]
    with pytest.raises(RequestError, match="neither 0 nor 1"):
        parse({"inputs": [item]}, b"\x01\x02").inputs["x"].values()


def test_null_text_stays_null() -> None:
    tensor = parse({"inputs": [{"name": "x", "shape": [2], "datatype": "BYTES", "data": ["é", None]}]}).inputs["x"]
    assert tensor.values() == ["é", None]
    assert tensor.array().tolist() == ["é".encode(), None]
