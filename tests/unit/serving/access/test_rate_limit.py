"""The bucket lets pass what one that is filled up drop by drop would."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.serving.access.rates import TokenBucket

# Powers of two, so that both ways of counting are exact.
RATES = st.sampled_from([0.125, 0.5, 1.0, 2.0, 8.0, 1024.0])
STEPS = st.lists(st.integers(0, 64).map(lambda n: n / 64), max_size=200)


@given(RATES, STEPS)
def test_it_decides_as_a_bucket_that_is_filled_does(rate: float, steps: list[float]) -> None:
    bucket, now = TokenBucket(rate), 1_000.0
    most = Fraction(max(rate, 1.0))
    tokens = most
    for step in steps:
        now += step
        tokens = min(most, tokens + Fraction(step) * Fraction(rate))
        wait = bucket.take(now)
        assert (wait == 0.0) == (tokens >= 1)
        if wait:
            assert Fraction(wait) == (1 - tokens) / Fraction(rate)
        else:
            tokens -= 1


@pytest.mark.parametrize("rate", [0.3, 1.0, 7.0, 333.3])
def test_over_a_long_time_the_rate_is_kept(rate: float) -> None:
    bucket, seconds = TokenBucket(rate), 200
    passed = sum(bucket.take(tick / 1_000) == 0.0 for tick in range(seconds * 1_000))
    assert rate * seconds - 1 <= passed <= rate * seconds + max(rate, 1.0) + 1


def test_who_waits_as_told_gets_in() -> None:
    bucket, now = TokenBucket(3.0), 5.0
    while not (wait := bucket.take(now)):
        pass
    assert bucket.take(now + wait * 0.99) > 0.0
    assert bucket.take(now + wait * 1.000001) == 0.0
