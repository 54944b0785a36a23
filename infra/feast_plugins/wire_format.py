"""Protobuf's wire format, as far as Feast's answers need it (protobuf.dev, "Encoding")."""

from __future__ import annotations

from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse

VARINT, EIGHT_BYTES, TEXT, FOUR_BYTES = 0, 1, 2, 5
SHORT = 0x7F
LONGEST_VARINT = 10

_VECTOR = GetOnlineFeaturesResponse.FeatureVector.DESCRIPTOR.fields_by_name
RESULT = bytes([GetOnlineFeaturesResponse.DESCRIPTOR.fields_by_name["results"].number << 3 | TEXT])
ENTRY = bytes([_VECTOR["values"].number << 3 | TEXT])
STATUSES = bytes([_VECTOR["statuses"].number << 3 | TEXT])

_ONE_BYTE = [bytes([number]) for number in range(SHORT + 1)]


def varint(number: int) -> bytes:
    r"""Return a number below 2^64 in groups of seven bits.

    >>> varint(5), varint(300)
    (b'\x05', b'\xac\x02')
    """
    if number <= SHORT:
        return _ONE_BYTE[number]
    parts = []
    while number > SHORT:
        parts.append(number & SHORT | 0x80)
        number >>= 7
    return bytes([*parts, number])
