"""Buckets against prometheus_client's own histogram."""

from __future__ import annotations

from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from skewless.serving.metrics.series import Buckets, Count, Family

BOUNDS = (0.5, 1.0, 2.5)
VALUES = st.lists(st.one_of(st.sampled_from(BOUNDS), st.floats(-1, 4)), max_size=40)


def theirs(values: list[float]) -> dict[str, float]:
    registry = CollectorRegistry()
    # A name of its own: where Feast was imported first, the client counts by name in files, whatever the registry.
    name = f"h{uuid4().hex}"
    histogram = Histogram(name, "h", buckets=BOUNDS, registry=registry)
    for value in values:
        histogram.observe(value)
    bounds = [*map(str, BOUNDS), "+Inf"]
    return {f'le="{bound}"': registry.get_sample_value(f"{name}_bucket", {"le": bound}) or 0.0 for bound in bounds}


def ours(buckets: Buckets) -> dict[str, float]:
    return {label: value for ending, label, value in buckets.samples() if ending == "_bucket"}


@given(VALUES, VALUES)
def test_values_fall_into_the_buckets_that_prometheus_puts_them_in(one: list[float], many: list[float]) -> None:
    buckets = Buckets(BOUNDS)
    for value in one:
        buckets.observe(value)
    buckets.observe_many(np.array(many, dtype=np.float64))
    assert ours(buckets) == theirs(one + many)
    endings = {ending: value for ending, _, value in buckets.samples()}
    assert endings["_count"] == len(one + many)
    assert endings["_sum"] == pytest.approx(sum(one + many), abs=1e-9)


def test_a_family_returns_the_same_series_for_the_same_labels() -> None:
    family = Family("counter", "n", "Number", ("a", "b"), Count)
    assert family("x", "y") is family("x", "y")
    assert family("x", "y") is not family("y", "x")


def test_a_family_refuses_labels_that_it_does_not_have() -> None:
    with pytest.raises(TypeError, match="n_total takes 2 labels, not 1"):
        Family("counter", "n", "Number", ("a", "b"), Count)("x")
