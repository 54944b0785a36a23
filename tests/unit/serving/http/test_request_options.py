"""What a request may say about how it wants to be answered, and what it may not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.errors import RequestError
from skewless.serving.http.predict_route import read_options
from skewless.serving.prediction.routing import Options

NOW = 1_768_478_400_123_456  # 2026-01-15 12:00:00.123456 UTC
LOOP = 50.0


def options(deadline_s: float = 0.0, **values: object) -> Options:
    return read_options(values, now_us=NOW, loop_s=LOOP, deadline_s=deadline_s)


@pytest.mark.parametrize(
    "values",
    [{}, {"rows": [], "model": "m"}, {"as_of": None, "max_feature_age_s": None, "timeout_us": None}, {"other": 7}],
)
def test_who_wants_nothing_special(values: dict[str, Any]) -> None:
    assert options(**values) == Options()


@pytest.mark.parametrize(
    ("as_of", "expected"),
    [
        (NOW, NOW - 456),
        (NOW - 456, NOW - 456),
        (NOW - 457, NOW - 1_456),
        ("2026-01-15T12:00:00Z", NOW - 123_456),
        ("2026-01-15T13:00:00.123456+01:00", NOW - 456),
        ("2026-01-15 12:00:00.000999+00:00", NOW - 123_456),
        (0, 0),
        (-1, -1_000),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
    ],
)
def test_as_of_is_a_whole_millisecond_that_has_begun(as_of: int | str, expected: int) -> None:
    assert options(as_of=as_of) == Options(as_of=expected)


@pytest.mark.parametrize(
    ("as_of", "fix"),
    [
        ("yesterday", "ISO 8601"),
        ("", "ISO 8601"),
        ("2026-01-15T12:00:00", "zone"),
        ("2026-13-45T12:00:00Z", "ISO 8601"),
        (1.5, "ISO 8601"),
        (True, "ISO 8601"),
        ([], "ISO 8601"),
        (-(2**63), "ISO 8601"),
        (2**63, "ISO 8601"),
        (-62_135_596_800_000_001, "ISO 8601"),
        (10**30, "ISO 8601"),
        (NOW + 1, "current time"),
        ("2026-01-15T12:00:01Z", "current time"),
        ("9999-12-31T23:59:59Z", "current time"),
    ],
)
def test_as_of_that_cannot_be(as_of: object, fix: str) -> None:
    with pytest.raises(RequestError, match="as_of") as caught:
        options(as_of=as_of)
    assert (caught.value.value, fix in caught.value.fix) == (as_of, True), caught.value.fix


@given(st.integers(-(2**70), 2**70))
def test_any_moment_that_is_taken_can_be_written_as_a_date(as_of: int) -> None:
    """The reply names the moment in ISO 8601."""
    try:
        moment = options(as_of=as_of).as_of
    except RequestError:
        assert not -62_135_596_800_000_000 <= as_of <= NOW
        return
    assert moment is not None
    assert 0 <= as_of - moment < 1_000
    assert datetime(1, 1, 1, tzinfo=UTC).timestamp() <= moment / 1e6 <= NOW / 1e6


@pytest.mark.parametrize(
    ("age", "expected"), [(1, 1_000_000), (0.5, 500_000), (1e-9, 1), (1.1, 1_100_000), (4.35, 4_350_000), (1e9, 10**15)]
)
def test_the_age_that_is_accepted(age: float, expected: int) -> None:
    assert options(max_feature_age_s=age) == Options(max_age_us=expected)


@pytest.mark.parametrize("name", ["max_feature_age_s", "timeout_us"])
@pytest.mark.parametrize("value", [0, -1, -0.5, "7", True, False, [], 2**53, 1e300, float("inf"), float("nan"), {}])
def test_numbers_that_are_none(name: str, value: object) -> None:
    with pytest.raises(RequestError, match=name) as caught:
        read_options({name: value}, now_us=NOW, loop_s=LOOP)
    assert "greater than 0" in caught.value.fix


def test_a_deadline_counts_from_now_and_replaces_the_servers() -> None:
    assert options(timeout_us=250_000) == Options(deadline=LOOP + 0.25)
    assert options(2.0) == Options(deadline=LOOP + 2.0)
    assert options(2.0, timeout_us=5_000_000) == Options(deadline=LOOP + 5.0)
    assert options(2.0, timeout_us=None) == Options(deadline=LOOP + 2.0)


def test_a_protocol_may_name_the_time_limit_otherwise() -> None:
    values: dict[str, object] = {"timeout": 1_000, "timeout_us": "none of ours"}
    assert read_options(values, now_us=NOW, loop_s=LOOP, timeout="timeout") == Options(deadline=LOOP + 0.001)


@pytest.mark.parametrize(("wish", "taken"), [(True, True), (False, False), (None, False)])
def test_contributions_are_wanted_or_not(*, wish: bool | None, taken: bool) -> None:
    assert options(contributions=wish) == Options(extras=("contributions",) if taken else ())


def test_all_at_once() -> None:
    found = options(as_of=NOW, max_feature_age_s=3, timeout_us=1_000_000, contributions=True)
    assert found == Options(as_of=NOW - 456, max_age_us=3_000_000, deadline=LOOP + 1.0, extras=("contributions",))
