"""A checksum tells any altered bit of a row of the prediction log, whatever is beside the row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from skewless.infra.records.predictions.checksum import find_intact, row_checksums, seal_rows
from skewless.infra.records.predictions.segments import CONTENT, SCHEMA

_SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    pa.string(): st.text(max_size=20) | st.sampled_from(["", "\0", "a" * 8, "a" * 9, "a" * 16]),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.uint8(): st.integers(0, 255),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
}


def values(kind: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401 - an Arrow type
    """Return a strategy of values of a type, null too."""
    if pa.types.is_list(kind):
        return st.none() | st.lists(values(kind.value_type), max_size=3)
    if pa.types.is_struct(kind):
        return st.none() | st.fixed_dictionaries({field.name: values(field.type) for field in kind})
    return st.none() | _SIMPLE[kind]


ROW = st.fixed_dictionaries({field.name: values(field.type) for field in CONTENT})


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), CONTENT)


@given(row=ROW, name=st.sampled_from(CONTENT.names), data=st.data())
def test_another_value_in_any_column(row: dict[str, Any], name: str, data: st.DataObject) -> None:
    other = row | {name: data.draw(values(CONTENT.field(name).type))}
    assume(repr(other) != repr(row))
    left, right = row_checksums(table(row, other)).tolist()
    assert left != right


@given(rows=st.lists(ROW, min_size=1, max_size=6), at=st.integers(0, 5))
def test_a_row_has_one_checksum_whatever_stands_beside_it(rows: list[dict[str, Any]], at: int) -> None:
    alone = [int(row_checksums(table(row))[0]) for row in rows]
    together = table(*rows)
    assert row_checksums(together).tolist() == alone
    assert row_checksums(pa.concat_tables([together.slice(at), together.slice(0, at)])).tolist() == [
        *alone[at:],
        *alone[:at],
    ]


@given(text=st.text(max_size=30), n=st.integers(2, 5))
def test_one_text_in_all_rows_has_the_words_of_a_single_one(text: str, n: int) -> None:
    assert len(set(row_checksums(pa.table({"a": [text] * n})).tolist())) == 1
    assert row_checksums(pa.table({"a": [text] * n}))[0] == row_checksums(pa.table({"a": [text, f"{text}x"]}))[0]


@pytest.mark.parametrize("bit", range(64))
def test_each_flipped_bit_of_a_float(bit: int) -> None:
    words = np.array([1.5, 1.5]).view(np.uint64) ^ np.array([0, 1 << bit], np.uint64)
    left, right = row_checksums(pa.table({"a": words.view(np.float64)})).tolist()
    assert left != right


def test_values_that_change_places() -> None:
    pairs = [["a", "b"], ["b", "a"], ["ab", ""], ["", "ab"]]
    as_list, as_columns = pa.table({"a": pairs}), pa.table({"a": [a for a, _ in pairs], "b": [b for _, b in pairs]})
    for each in (as_list, as_columns):
        assert len(set(row_checksums(each).tolist())) == len(pairs)


@given(rows=st.lists(ROW, min_size=1, max_size=4), name=st.sampled_from(SCHEMA.names), data=st.data())
def test_a_sealed_row_is_intact_until_it_is_altered(rows: list[dict[str, Any]], name: str, data: st.DataObject) -> None:
    sealed = seal_rows(table(*rows), "3f2a91c07b5d-000004")
    assert sealed.schema.equals(SCHEMA)
    assert find_intact(sealed).all()
    assert (sealed["row"].to_pylist(), set(sealed["rows"].to_pylist())) == ([*range(len(rows))], {len(rows)})
    place = data.draw(st.integers(0, len(rows) - 1))
    altered = sealed.to_pylist()
    value = data.draw(values(SCHEMA.field(name).type).filter(lambda value: value is not None or name != "checksum"))
    assume(repr(value) != repr(altered[place][name]))
    altered[place][name] = value
    intact = find_intact(pa.Table.from_pylist(altered, SCHEMA)).tolist()
    assert intact == [i != place for i in range(len(rows))]


def test_rows_of_zeros_are_told_apart() -> None:
    """A file that lost its bytes to zeros must not look genuine."""
    tables = [pa.table({name: [0] for name in names}) for names in ("a", "ab", "abc")]
    assert len({0, *(int(row_checksums(table)[0]) for table in tables)}) == 1 + len(tables)
