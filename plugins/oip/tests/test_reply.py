from __future__ import annotations

import json

import numpy as np
import pytest

from skewless.contract.errors import RequestError
from skewless_oip.conversion import ReplyTensor, encode_reply
from skewless_oip.datatypes import BYTES, FP32, FP64

HEAD = b'{"model_name":"m",'


def test_a_reply_of_json_has_no_header_length() -> None:
    body, length = encode_reply(HEAD, [ReplyTensor("score", FP64, np.array([0.5, np.nan, -0.0]), binary=False)])
    assert length is None
    assert json.loads(body) == {
        "model_name": "m",
        "outputs": [{"name": "score", "datatype": "FP64", "shape": [3], "data": [0.5, None, -0.0]}],
    }
    assert b"-0.0" in body


def test_binary_tensors_follow_in_the_order_of_the_json() -> None:
    outputs = [
        ReplyTensor("a", FP32, np.array([[1.5]]), binary=True),
        ReplyTensor("b", FP64, np.array([2.5]), binary=False),
        ReplyTensor("c", BYTES, np.array([b"\xff", None], dtype=object), binary=True),
    ]
    body, length = encode_reply(HEAD, outputs)
    items = json.loads(body[:length])["outputs"]
    assert [item.get("parameters") for item in items] == [{"binary_data_size": 4}, None, {"binary_data_size": 9}]
    assert body[length:] == np.float32(1.5).tobytes() + b"\x01\0\0\0\xff\0\0\0\0"


def test_floats_are_read_back_to_the_bit() -> None:
    values = np.array([0.1, 5e-324, 1.7976931348623157e308, 1 / 3, 2**53 + 2.0])
    body, _ = encode_reply(HEAD, [ReplyTensor("score", FP64, values, binary=False)])
    assert np.array(json.loads(body)["outputs"][0]["data"]).tobytes() == values.tobytes()


def test_bytes_that_are_no_text_are_binary_or_refused() -> None:
    with pytest.raises(RequestError, match=r"not UTF-8.*binary data"):
        encode_reply(HEAD, [ReplyTensor("c", BYTES, np.array([b"\xff"], dtype=object), binary=False)])
