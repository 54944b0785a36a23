"""SEMANTICS 1.5: what is a key, and which bytes name a row."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.contract.keys import KeyCodec, KeyValue, marker_key, parse_key
from tests.worlds.plans import make_view

INT64 = Column(name="id", dtype=DType.INT64)
INT32 = Column(name="id", dtype=DType.INT32)
STRING = Column(name="id", dtype=DType.STRING)


@pytest.mark.parametrize(
    ("column", "value", "key"),
    [
        (INT64, 1, 1),
        (INT64, "1", 1),
        (INT64, -7, -7),
        (INT64, "-7", -7),
        (INT64, "9007199254740993", 2**53 + 1),
        (INT64, str(2**63 - 1), 2**63 - 1),
        (INT64, str(-(2**63)), -(2**63)),
        (INT32, 2**31 - 1, 2**31 - 1),
        (STRING, "", ""),
        (STRING, "1", "1"),
        (STRING, " a ", " a "),
        (INT64, None, None),
        (STRING, None, None),
    ],
)
def test_1_5_keys_are_taken_by_declared_type(column: Column, value: object, key: KeyValue | None) -> None:
    found = parse_key(column, value)
    assert found == key
    assert type(found) is type(key)


NOT_ASCII = ("\uff11", "\u0663")  # digits all the same, to str.isdigit


@pytest.mark.parametrize("value", [1.0, True, False, [1], {"id": 1}, b"1"])
@pytest.mark.parametrize("column", [INT32, INT64])
def test_1_5_another_json_type_is_refused(column: Column, value: object) -> None:
    with pytest.raises(RequestError, match="is not an integer"):
        parse_key(column, value)


@pytest.mark.parametrize("value", ["1.0", "", " 1", "1 ", "+1", "1_0", "0x1", "1\n", "--1", "9" * 5_000, *NOT_ASCII])
@pytest.mark.parametrize("column", [INT32, INT64])
def test_1_5_text_that_is_no_integer_is_refused(column: Column, value: str) -> None:
    with pytest.raises(RequestError, match="key 'id'"):
        parse_key(column, value)


@pytest.mark.parametrize(
    ("column", "value"),
    [(INT64, 2**63), (INT64, -(2**63) - 1), (INT64, str(2**63)), (INT32, 2**31), (INT32, str(-(2**31) - 1))],
)
def test_1_5_integers_out_of_range_are_refused(column: Column, value: object) -> None:
    with pytest.raises(RequestError, match=f"does not fit {column.dtype}"):
        parse_key(column, value)


@pytest.mark.parametrize("value", [1, 1.5, True, ["a"], b"a"])
def test_1_5_what_is_no_string_is_refused(value: object) -> None:
    with pytest.raises(RequestError, match="is not a string"):
        parse_key(STRING, value)


def test_1_5_text_that_has_no_utf8_form_is_refused() -> None:
    with pytest.raises(RequestError, match="is not valid Unicode"):
        parse_key(STRING, "\ud800")


def test_1_5_strings_are_not_normalised() -> None:
    codec = KeyCodec("p", make_view(keys={"id": DType.STRING}))
    assert codec.encode(["\u00e9"]) != codec.encode(["e\u0301"])


def test_the_name_of_a_row_is_readable() -> None:
    view = make_view(keys={"card": DType.INT64, "shop": DType.STRING})
    codec = KeyCodec("pay", view)
    assert codec.encode([-7, "a|b{c}%"]) == f"sk:pay:{view.hash}:{{card+shop|-7|a%7Cb%7Bc%7D%25}}".encode()


def test_a_key_with_a_null_part_names_nothing() -> None:
    codec = KeyCodec("p", make_view(keys={"a": DType.INT64, "b": DType.STRING}))
    assert codec.encode([None, "x"]) is None
    assert codec.encode([1, None]) is None
    assert codec.encode_columns({"b": ["x", None, ""], "a": [1, 2, 3]}) == [
        codec.encode([1, "x"]),
        None,
        codec.encode([3, ""]),
    ]


@pytest.mark.parametrize("value", ["a", "", "a}b", "{", "%", "日本"])
def test_all_views_of_one_entity_share_a_cluster_slot(value: str) -> None:
    views = [make_view(name, keys={"id": DType.STRING}) for name in ("one", "two", "three")]
    keys = [KeyCodec("p", view).encode([value]) or b"" for view in views]
    assert len(set(keys)) == 3
    assert len({key_slot(key) for key in keys}) == 1


def test_entities_are_spread_over_cluster_slots() -> None:
    codec = KeyCodec("p", make_view())
    assert len({key_slot(codec.encode([i]) or b"") for i in range(200)}) > 150


def test_a_marker_is_no_row_and_belongs_to_one_view_of_one_project() -> None:
    one, two = make_view("one"), make_view("two")
    names = {marker_key("p", one), marker_key("p", two), marker_key("q", one)}
    assert len(names) == 3
    assert not any("{" in name for name in names)
