"""The wire format of Confluent's schema registry: which schema a message has.

::

    0x00 | schema id, 4 bytes, big-endian | Avro binary
    0x00 | schema id, 4 bytes, big-endian | message indexes | Protobuf binary

Message indexes are zigzag varints: how many follow, and the place of the message in its file, level by level. The first
message of a file, ``[0]``, is the single byte 0.
https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from skewless.infra.platform.formats.codec import PayloadError

_HEAD = struct.Struct(">bI")
_MOST_LEVELS, _MOST_INDEX = 32, 1_000_000
_VARINT_BYTES = 5


class Frame(NamedTuple):
    """A message in the wire format: the id of its schema, and its bytes after the id."""

    schema_id: int
    body: bytes


def parse_frame(payload: bytes) -> Frame:
    r"""Return the parts of a message in the wire format.

    Raises:
        PayloadError: it is not in the wire format.

    >>> parse_frame(b"\x00\x00\x00\x01\x02a")
    Frame(schema_id=258, body=b'a')
    """
    if len(payload) < _HEAD.size:
        raise PayloadError(f"the message has {len(payload)} bytes, too few for the id of a schema")
    magic, schema_id = _HEAD.unpack_from(payload)
    if magic:
        raise PayloadError("the message does not begin with the byte 0 of the schema registry's wire format")
    return Frame(schema_id, payload[_HEAD.size :])


def split_indexes(body: bytes) -> tuple[tuple[int, ...], bytes]:
    r"""Return the place of a Protobuf message in its file, and the bytes after it.

    Raises:
        PayloadError: the indexes are not valid.

    >>> split_indexes(b"\x00abc"), split_indexes(b"\x04\x02\x00abc")
    (((0,), b'abc'), ((1, 0), b'abc'))
    """
    n, end = _read_zigzag(body, 0)
    if n == 0:
        return (0,), body[end:]
    if not 0 < n <= _MOST_LEVELS:
        raise PayloadError(f"the message has {n} message indexes")
    indexes = []
    for _ in range(n):
        index, end = _read_zigzag(body, end)
        if not 0 <= index <= _MOST_INDEX:
            raise PayloadError("a message index is out of range")
        indexes.append(index)
    return tuple(indexes), body[end:]


def _read_zigzag(body: bytes, start: int) -> tuple[int, int]:
    number = 0
    for place in range(_VARINT_BYTES):
        if start + place >= len(body):
            raise PayloadError("the message ends in its message indexes")
        byte = body[start + place]
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:  # noqa: PLR2004 - the last byte has no high bit
            return (number >> 1) ^ -(number & 1), start + place + 1
    raise PayloadError("a message index is too long")
