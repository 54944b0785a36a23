"""Whatever comes from outside, an error is short, and its reply can be written as JSON."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.errors import RequestError
from skewless.contract.render import render_value, shorten

MOST = 200
CHARS = st.characters(codec=None, exclude_categories=()) | st.sampled_from("\ud800\udfff\x00'\"\\é😀")
TEXTS = st.text(CHARS) | st.builds(lambda text, n: text * n, st.text(CHARS, min_size=1), st.integers(1, 5_000))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary() | st.integers(4_000, 9_000).map(
        lambda digits: 10**digits
    ),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner) | st.tuples(inner, inner),
)  # fmt: skip


def deep(depth: int, *, named: bool) -> Any:  # noqa: ANN401 - JSON
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if named else [value]
    return value


@given(VALUES)
def test_every_value_is_shown_in_a_bounded_text(value: object) -> None:
    shown = render_value(value)
    assert 0 < len(shown) <= MOST
    shown.encode()


@given(st.text(CHARS), st.integers(5, 300))
def test_a_short_text_stays_and_a_long_one_keeps_both_ends(text: str, most: int) -> None:
    cut = shorten(text, most)
    cut.encode()
    whole = text.encode(errors="backslashreplace").decode()
    if len(text) <= most:
        assert cut == whole
    else:
        head, gap, tail = cut.partition("...")
        assert gap
        assert whole.startswith(head)
        assert whole.endswith(tail)


@given(TEXTS, TEXTS, VALUES, TEXTS)
def test_every_error_is_short_and_can_be_sent(thing: str, problem: str, value: object, fix: str) -> None:
    error = RequestError(f"input {thing!r}", problem, value=value, fix=fix)
    sent = orjson.loads(orjson.dumps(error.as_dict() | {"message": error.sentence()}))
    assert sent["kind"] == "request"
    assert isinstance(sent.get("value", ""), str | int)
    assert len(error.sentence()) < 25_000


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("depth", [10, 990, 5_000])
def test_depth_is_no_matter(depth: int, *, named: bool) -> None:
    assert len(render_value(deep(depth, named=named))) < MOST
