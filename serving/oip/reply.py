"""An inference reply of the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from skewless.serving.oip.binary_tensor import binary_data
from skewless.serving.oip.datatypes import Datatype
from skewless.serving.oip.json_tensor import json_data


class ReplyTensor(NamedTuple):
    """A tensor of a reply.

    Args:
        array: of the datatype and in the tensor's shape; BYTES: objects, bytes or None.
        binary: whether it goes as binary data.
    """

    name: str
    datatype: Datatype
    array: npt.NDArray[Any]
    binary: bool


def encode_reply(head: bytes, outputs: Sequence[ReplyTensor]) -> tuple[bytes, int | None]:
    """Return the body of a reply, and how much of it is JSON where binary data follows.

    Args:
        head: the JSON up to the outputs: ``{"model_name": ..., ``, with its last comma.

    Raises:
        RequestError: bytes that are not UTF-8 are asked for as JSON.
    """
    texts, tail = [], []
    for name, datatype, array, binary in outputs:
        if binary:
            data = binary_data(datatype, array)
            tail.append(data)
            texts.append(_described(name, datatype, array) + b'"parameters":{"binary_data_size":%d}}' % len(data))
        else:
            texts.append(b'%b"data":%b}' % (_described(name, datatype, array), json_data(datatype, array)))
    text = b'%b"outputs":[%b]}' % (head, b",".join(texts))
    return (b"".join((text, *tail)), len(text)) if tail else (text, None)


def _described(name: str, datatype: Datatype, array: npt.NDArray[Any]) -> bytes:
    shape = ",".join(map(str, array.shape))
    return f'{{"name":"{name}","datatype":"{datatype.name}","shape":[{shape}],'.encode()
