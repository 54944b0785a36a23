"""What differs between two values: all of it, once, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.changes import Difference, find_differences
from skewless.contract.columns import Column, FeatureRef
from skewless.contract.dtypes import DType

_NAMES = st.sampled_from(["a", "b", "c", "d"])
_LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(width=16) | st.sampled_from(["", "x", "1", "none"])
_TREES = st.recursive(_LEAVES, lambda inner: st.dictionaries(_NAMES, inner, max_size=4), max_leaves=12)
_LISTS = st.lists(_LEAVES | st.lists(st.integers(0, 1), max_size=2), max_size=6)


def said(before: object, after: object) -> list[tuple[str, str]]:
    return [(item.action, ".".join(item.path)) for item in find_differences(before, after)]


def patched(before: Any, found: Sequence[Difference]) -> Any:  # noqa: ANN401 - a tree
    """Return a tree of mappings with differences applied to it."""
    for item in found:
        if not item.path:
            return item.after
        name, rest = item.path[0], item.path[1:]
        if rest:
            inner = Difference(path=rest, action=item.action, before=item.before, after=item.after)
            before = {**before, name: patched(before[name], [inner])}
        elif item.action == "remove":
            before = {key: value for key, value in before.items() if key != name}
        else:
            before = {**before, name: item.after}
    return before


@given(_TREES, _TREES)
def test_the_differences_turn_one_tree_into_the_other(before: object, after: object) -> None:
    found = list(find_differences(before, after))
    made = patched(before, found)
    assert list(find_differences(made, after)) == []
    assert (found == []) == (_canonical(before) == _canonical(after))
    assert len({item.path for item in found}) == len(found)


@given(_LISTS, _LISTS)
def test_lists_differ_unless_they_are_equal(before: list[Any], after: list[Any]) -> None:
    found = list(find_differences({"l": before}, {"l": after}))
    assert (found == []) == (repr(before) == repr(after))


def _canonical(value: object) -> str:
    """Return a text that equal trees share; of mappings the order does not count."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_canonical(value[name])}" for name in sorted(value)) + "}"
    return repr(value)


@pytest.mark.parametrize(("before", "after"), [(1, True), (1, 1.0), (0.0, False), ("1", 1), (None, 0), (0.0, "0.0")])
def test_values_of_other_types_are_others(before: object, after: object) -> None:
    assert said(before, after) == [("change", "")]


def test_nan_is_like_itself() -> None:
    assert said({"floor": float("nan")}, {"floor": float("nan")}) == []


def test_named_items_are_compared_by_name() -> None:
    x, y, z = (Column(name=name, dtype=DType.INT64) for name in "xyz")
    changed = Column(name="y", dtype=DType.FLOAT64)
    assert said((x, y), (changed, z)) == [("change", "y.dtype"), ("add", "z"), ("remove", "x")]
    assert said((x, y, z), (z, x, y)) == [("order", "")]


def test_references_are_compared_by_label() -> None:
    one, other = FeatureRef(group="v", name="x"), FeatureRef(group="w", name="x")
    assert said({"f": (one,)}, {"f": (one, other)}) == [("add", "f.w__x")]


def test_items_that_are_not_unique_are_compared_by_place() -> None:
    assert said({"l": [0, 0, 1]}, {"l": [0, 1, 1]}) == [("change", "l.1")]
    assert said({"l": [0, 0]}, {"l": [0, 0, 0]}) == [("change", "l")]
    assert said({"l": [0] * 9}, {"l": [1] * 9}) == [("change", "l")]


def test_a_difference_is_plain_json() -> None:
    column = Column(name="x", dtype=DType.INT64)
    (found,) = find_differences({"c": ()}, {"c": (column,)})
    assert found.as_dict() == {
        "path": ["c", "x"],
        "action": "add",
        "before": None,
        "after": {"name": "x", "dtype": "int64"},
    }
