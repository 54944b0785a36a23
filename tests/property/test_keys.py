"""SEMANTICS 1.5: one entity has one name, and no two share one."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.keys import KeyCodec, KeyValue, parse_key
from tests.worlds.plans import make_view

TRICKY = st.text(alphabet="{}|%+:07CD a\x00é日", max_size=6)
TEXTS = TRICKY | st.text(max_size=12)
INTS = st.integers(-(2**63), 2**63 - 1)
PAIR = make_view(keys={"a": DType.STRING, "b": DType.STRING})
MIXED = make_view(keys={"a": DType.INT64, "b": DType.STRING})


@given(st.tuples(TEXTS, TEXTS), st.tuples(TEXTS, TEXTS))
@example(("a|", "b"), ("a", "|b"))
@example(("", "|"), ("|", ""))
@example(("%7C", ""), ("|", ""))
@example(("}", "{"), ("{", "}"))
def test_1_5_distinct_text_keys_have_distinct_names(one: tuple[str, str], two: tuple[str, str]) -> None:
    codec = KeyCodec("p", PAIR)
    assert (codec.encode(one) == codec.encode(two)) == (one == two)


@given(st.tuples(INTS, TEXTS), st.tuples(INTS, TEXTS))
@example((1, "1"), (11, ""))
@example((-1, ""), (1, ""))
def test_1_5_distinct_mixed_keys_have_distinct_names(one: tuple[int, str], two: tuple[int, str]) -> None:
    codec = KeyCodec("p", MIXED)
    assert (codec.encode(one) == codec.encode(two)) == (one == two)


@given(st.lists(st.tuples(TRICKY, TRICKY), unique=True, min_size=2, max_size=50))
def test_1_5_many_tricky_keys_have_as_many_names(keys: list[tuple[str, str]]) -> None:
    codec = KeyCodec("p", PAIR)
    columns: dict[str, list[KeyValue | None]] = {"a": [key[0] for key in keys], "b": [key[1] for key in keys]}
    assert len(set(codec.encode_columns(columns))) == len(keys)


@given(st.lists(st.tuples(st.none() | INTS, st.none() | TEXTS), max_size=20))
@example([(-(2**63), "{%|}"), (None, "a"), (1, None), (0, "")])
def test_1_5_columns_are_named_at_once_as_one_by_one(keys: list[tuple[int | None, str | None]]) -> None:
    codec = KeyCodec("p", MIXED)
    packed = codec.pack(
        {"a": pa.array([key[0] for key in keys], pa.int64()), "b": pa.array([key[1] for key in keys], pa.string())}
    )
    assert packed.to_pylist() == [codec.encode(key) for key in keys]


@given(INTS)
def test_1_5_an_integer_and_its_digits_name_one_row(value: int) -> None:
    column = Column(name="a", dtype=DType.INT64)
    assert parse_key(column, str(value)) == parse_key(column, value) == value


@given(st.tuples(TEXTS, TEXTS))
def test_the_hash_tag_holds_the_whole_entity_and_nothing_of_the_view(key: tuple[str, str]) -> None:
    names = [KeyCodec("p", make_view(view, keys={"a": DType.STRING, "b": DType.STRING})).encode(key) for view in "xy"]
    first, second = (name or b"" for name in names)
    assert first != second
    assert first.partition(b"{")[2] == second.partition(b"{")[2]
    assert first.count(b"{") == first.count(b"}") == 1
    assert first.endswith(b"}")
    assert key_slot(first) == key_slot(second)
