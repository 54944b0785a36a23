"""Events in Avro and Protobuf: what is written is read, and any bytes are an event or a reason, in bounded time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skewless.infra.platform.formats.codec import PayloadError
from skewless_decisions.codec import add_frame
from skewless_formats.avro import AvroWriter
from skewless_formats.events import RegistryReader
from skewless_formats.frame import parse_frame, split_indexes
from skewless_formats.registry import RegisteredSchema, SchemaRegistry
from tests.worlds.formats import AVRO, PROTOBUF, avro_message, avro_schema, proto_file, proto_message, proto_text

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"))
RECORDS = st.fixed_dictionaries(
    {
        "card": INT64,
        "amount": st.none() | st.floats(allow_nan=False),
        "shop": TEXT,
        "online": st.booleans(),
        "at": st.integers(0, 4_000_000_000_000_000),
    }
)
WIDE = avro_schema(
    tags={"type": {"type": "array", "items": "string"}},
    more={"type": {"type": "map", "values": {"type": "array", "items": "bytes"}}},
    inner={"type": ["null", {"type": "record", "name": "In", "fields": [{"name": "x", "type": "bytes"}]}]},
)
FILE = proto_file(optional=("amount",))


class Memory(SchemaRegistry):
    """A registry in memory: 1 is wide Avro, 2 is Protobuf."""

    def __init__(self) -> None:
        super().__init__("http://localhost")

    def schema(self, schema_id: int) -> RegisteredSchema | None:
        """Return a schema by its id."""
        return {
            1: RegisteredSchema(id=1, kind="AVRO", text=json.dumps(WIDE)),
            2: RegisteredSchema(id=2, kind="PROTOBUF", text=proto_text(FILE)),
        }.get(schema_id)

    def latest(self, subject: str) -> RegisteredSchema | None:
        """Return None: no subject has a schema."""
        schemas: dict[str, RegisteredSchema] = {}
        return schemas.get(subject)


@pytest.fixture(scope="module")
def readers() -> dict[int, RegistryReader]:
    return {1: RegistryReader(AVRO, Memory()), 2: RegistryReader(PROTOBUF, Memory())}


@given(RECORDS)
def test_what_a_producer_writes_is_read(readers: dict[int, RegistryReader], record: dict[str, Any]) -> None:
    wide = record | {"tags": ["a"] * 3, "more": {"b": [b"c"]}, "inner": None}
    assert readers[1].read(avro_message(1, WIDE, wide)) == record
    values = {name: value for name, value in record.items() if name != "at" and value is not None}
    assert readers[2].read(proto_message(2, FILE, values, record["at"])) == record


def answer(reader: RegistryReader, payload: bytes) -> dict[str, Any] | None:
    try:
        return reader.read(payload)
    except PayloadError as error:
        reason = str(error)
    assert reason.isprintable()
    assert len(reason) < 300
    return None


@given(st.sampled_from([1, 2]), st.binary(max_size=300))
@example(1, b"\xff" * 9 + b"\x01")  # a length of 2^63 - 1
@example(1, b"\xff" * 9 + b"\x02")  # beyond 64 bits
@example(1, b"\x01" * 200)  # negative lengths
@example(2, b"\x1a\xff\xff\xff\xff\x0f")
@example(2, b"\x0b" * 200)  # nested groups
def test_any_bytes_are_an_event_or_a_reason(readers: dict[int, RegistryReader], kind: int, body: bytes) -> None:
    answer(readers[kind], body)
    answer(readers[kind], add_frame(kind, body))
    answer(readers[kind], add_frame(kind, b"\0" + body))


@given(RECORDS, st.data())
def test_a_truncated_or_changed_message_is_never_read_as_more_than_its_bytes(
    readers: dict[int, RegistryReader], record: dict[str, Any], data: st.DataObject
) -> None:
    whole = avro_message(1, WIDE, record | {"tags": ["a"], "more": {}, "inner": {"x": b"y"}})
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert answer(readers[1], whole[:cut]) is None
    assert answer(readers[1], whole + b"\0") is None
    place = data.draw(st.integers(5, len(whole) - 1))
    answer(readers[1], whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :])


@given(st.binary(max_size=30))
def test_a_frame_has_all_bytes_of_its_message(payload: bytes) -> None:
    try:
        frame = parse_frame(payload)
    except PayloadError:
        assert len(payload) < 5 or payload[0]
        return
    assert add_frame(*frame) == payload


def encode_indexes(indexes: tuple[int, ...]) -> bytes:
    """Return the place of a message in its file as zigzag varints, after their number; the first message is one 0."""
    parts = bytearray()
    for number in (len(indexes), *indexes) if indexes != (0,) else (0,):
        rest = number << 1
        while rest > 0x7F:
            parts.append(rest & 0x7F | 0x80)
            rest >>= 7
        parts.append(rest)
    return bytes(parts)


def test_the_first_message_of_a_file_is_one_byte() -> None:
    assert (encode_indexes((0,)), encode_indexes((1, 0))) == (b"\x00", b"\x04\x02\x00")


@given(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=32).map(tuple), st.binary(max_size=5))
def test_message_indexes_come_back(indexes: tuple[int, ...], body: bytes) -> None:
    assert split_indexes(encode_indexes(indexes) + body) == (indexes, body)


@given(RECORDS)
def test_a_writer_always_writes_the_same_bytes(record: dict[str, Any]) -> None:
    schema = avro_schema(at={"type": "long"})
    first, second = AvroWriter(schema), AvroWriter(schema)
    assert first.write(record) == second.write(dict(reversed(record.items()))) == avro_message(0, schema, record)[5:]
