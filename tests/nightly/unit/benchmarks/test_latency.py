"""Moments of arrival have the distribution that they name; quantiles are latencies that were measured."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.arrivals import constant, poisson
from benchmarks.latency import LatencySample, quantile


def test_arrivals_by_chance_are_poisson() -> None:
    moments = poisson(1_000, 50)
    gaps = np.diff(moments)
    assert abs(len(moments) - 50_000) < 5 * math.sqrt(50_000)
    assert (gaps >= 0).all()
    assert 0 < moments[0] < moments[-1] < 50
    assert abs(gaps.mean() * 1_000 - 1) < 0.02
    assert abs(gaps.std() * 1_000 - 1) < 0.03  # of an exponential distribution mean and deviation are one


def test_arrivals_by_chance_are_the_same_for_the_same_seed_only() -> None:
    assert np.array_equal(poisson(10, 5, seed=1), poisson(10, 5, seed=1))
    assert not np.array_equal(poisson(10, 5, seed=1)[:3], poisson(10, 5, seed=2)[:3])


def test_constant_arrivals_keep_their_distance() -> None:
    moments = constant(200, 2)
    assert len(moments) == 400
    assert np.allclose(np.diff(moments), 0.005)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999, 1.0])
@pytest.mark.parametrize("n", [1, 7, 100, 1_001])
def test_a_quantile_is_the_smallest_value_that_the_share_does_not_exceed(share: float, n: int) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    place = math.ceil(share * n - 1e-9) - 1
    assert quantile(values, share) == sorted(values)[place]


def test_facts_are_told_in_milliseconds_and_shares() -> None:
    latencies = np.array([0.001] * 98 + [0.1, 0.2])
    measured = LatencySample(latencies=latencies, seconds=2.0, cpu_seconds=0.5, failed=0, late=np.empty(0))
    told = measured.facts()
    assert (told["rate"], told["p50"], told["load"]) == (50, 1, 0.25)
    assert (told["p99"], told["p99.9"]) == (100, 200)
