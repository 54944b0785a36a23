"""The rules of windows that a stranger needs to compute the same features, each against Python's own arithmetic."""

from __future__ import annotations

import decimal
import json
import math
import random
from dataclasses import replace
from fractions import Fraction
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pytest

from skewless.contract.dtypes import DType
from skewless.contract.window_events import EventSelector
from skewless.contract.windows.history import Timeline, WindowHistory
from skewless.contract.windows.hops import SECOND
from skewless.contract.windows.sketch import hash_numbers, hash_texts
from skewless.contract.windows.state_layout import EventOrigins, partition_number
from skewless.contract.windows.view import Aggregate, Function, WindowView
from tests.worlds.plans import columns

WINDOW, HOP = 60 * SECOND, 10 * SECOND
T = 59 * SECOND


def view_of(dtype: DType, *functions: Function, scale: int = 0, k: int = 256) -> WindowView:
    return WindowView(
        name="v",
        keys=columns({"id": DType.INT64}),
        source="s",
        event_column="ts",
        inputs=columns({"x": dtype}),
        aggregates=tuple(
            Aggregate(name=one, column="x", function=one, window_us=WINDOW, hop_us=HOP) for one in functions
        ),
        scales={"x": scale},
        sketch_size=k,
    )


def features(view: WindowView, values: pa.Array, partitions: list[str] | None = None) -> list[float]:
    """Return the features of one entity whose events all happened at once, in the order of their positions."""
    n = len(values)
    numbers = [partition_number(name) for name in partitions or ["p"] * n]
    origin = EventOrigins(
        ts=np.zeros(n, dtype=np.int64), partition=np.array(numbers, dtype=np.int64), seq=np.arange(n, dtype=np.int64)
    )
    rows = pa.table({"id": pa.array([1] * n, pa.int64()), "x": values})
    seen = EventSelector(view).select(rows, origin)
    entity = np.zeros(len(seen.rows), dtype=np.int64)
    timeline = Timeline.from_events(1, entity, seen.origin, seen.words, seen.hashes)
    found = WindowHistory(view).features(timeline, np.array([0]), np.array([T], dtype=np.int64))
    return [float(value) for value in found[0]]


def rounded(exact: Fraction) -> float:
    """Return the float64 nearest to a number, ties to the even one, found by comparing fractions."""
    near = exact.numerator / exact.denominator
    around = [math.nextafter(near, -math.inf), near, math.nextafter(near, math.inf)]
    best = min(around, key=lambda one: (abs(Fraction(one) - exact), int(math.frexp(one)[0] * 2**53) & 1))
    assert best == near
    return best


@pytest.mark.parametrize("seed", range(40))
def test_3_4_sum_mean_and_var_are_quotients_of_integers_rounded_once_and_std_is_a_root(seed: int) -> None:
    rng = random.Random(seed)
    scale, size = rng.randrange(7), 10 ** rng.randrange(7)
    values = [rng.uniform(-1, 1) * size for _ in range(rng.randrange(2, 30))]
    view = view_of(DType.FLOAT64, Function.SUM, Function.MEAN, Function.VAR, Function.STD, scale=scale)
    total, mean, var, std = features(view, pa.array(values))
    fixed = [round(value * float(10**scale)) for value in values]
    n, s1, s2, unit = len(fixed), sum(fixed), sum(one * one for one in fixed), 10**scale
    assert total == rounded(Fraction(s1, unit))
    assert mean == rounded(Fraction(s1, n * unit))
    assert var == rounded(Fraction(n * s2 - s1 * s1, n * (n - 1) * unit * unit))
    with decimal.localcontext() as context:
        context.prec = 80
        # The root is of the rounded variance: two roundings, each to the nearest.
        assert std == rounded(Fraction(decimal.Decimal(var).sqrt()))


def test_3_4_ties_of_a_division_go_to_the_even_neighbour() -> None:
    """2^53 + 1 and 2^53 + 3 lie half way between two float64; the first goes down, the second up."""
    for odd, even in ((2**53 + 1, 2**53), (2**53 + 3, 2**53 + 4)):
        values = pa.array([odd, 0], pa.int64())
        total, mean, _ = features(view_of(DType.INT64, Function.SUM, Function.MEAN, Function.COUNT), values)
        assert (total, mean) == (float(even), float(even) / 2)


def test_3_4_an_empty_window_is_a_count_of_0_and_null_else() -> None:
    view = view_of(DType.FLOAT64, *Function)
    for values in (pa.array([], pa.float64()), pa.array([None, math.nan])):
        for item, value in zip(view.aggregates, features(view, values), strict=True):
            counted = item.function in {Function.COUNT, Function.COUNT_DISTINCT}
            assert value == 0.0 if counted else math.isnan(value), item.function


@pytest.mark.parametrize("seed", range(10))
def test_3_3_a_sequence_has_the_first_or_last_values_and_null_where_there_are_fewer(seed: int) -> None:
    rng = random.Random(seed)
    values = [rng.choice([None, math.nan, math.inf, -0.0, rng.gauss(0, 1)]) for _ in range(rng.randrange(8))]
    view = view_of(DType.FLOAT64, Function.FIRST, Function.LAST)
    view = replace(view, aggregates=tuple(replace(i, place=place) for i in view.aggregates for place in range(1, 6)))
    present = [value + 0.0 for value in values if value is not None and not math.isnan(value)]
    wanted = [(ordered + [math.nan] * 5)[:5] for ordered in (present, present[::-1])]
    # Events of one time have the order of their positions.
    assert str(features(view, pa.array(values, pa.float64()))) == str(wanted[0] + wanted[1])


def test_6_1_a_view_without_sequences_keeps_its_hash() -> None:
    """The hash is part of the online key: another one would orphan the states of earlier versions."""
    view = view_of(DType.FLOAT64, Function.FIRST, Function.LAST, Function.SUM, scale=2)
    assert view.hash == "c9a6a1d4989251cb"
    longer = replace(view, aggregates=(*view.aggregates, replace(view.aggregates[1], name="last_2", place=2)))
    assert longer.hash != view.hash
    assert WindowView.from_dict(json.loads(json.dumps(longer.as_dict()))) == longer


def test_3_3_at_one_time_partitions_go_by_their_signed_number_and_then_positions() -> None:
    names = [f"events/s/m0/{i}" for i in range(6)]

    def number(name: str) -> int:
        return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)

    order = sorted(names, key=number)
    assert order != names
    assert any(number(name) < 0 for name in names)
    values = pa.array([float(order.index(name)) for name in names * 2])
    assert features(view_of(DType.FLOAT64, Function.FIRST, Function.LAST), values, names * 2) == [0.0, 5.0]
    twice = pa.array([1.0, 2.0, 3.0])
    assert features(view_of(DType.FLOAT64, Function.FIRST, Function.LAST), twice) == [1.0, 3.0]


def mixed(bits: int) -> int:
    """Return splitmix64 of 64 bits, as it was published."""
    z = (bits + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return min(z ^ (z >> 31), 2**64 - 2)


def test_3_11_hashes_are_those_of_the_rule_book() -> None:
    words = ["", "a", "日本"]
    expected = [int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little") for word in words]
    assert hash_texts(pa.array(words)).tolist() == expected
    integers = [0, -1, 2**63 - 1, -(2**63)]
    assert hash_numbers(np.array(integers)).tolist() == [mixed(one % 2**64) for one in integers]
    assert hash_numbers(np.array([True, False])).tolist() == [mixed(1), mixed(0)]
    floats = np.array([0.5, -2.0, -0.0])
    assert hash_numbers(floats).tolist() == [mixed(bits) for bits in (0x3FE0 << 48, 0xC000 << 48, 0)]


def test_3_11_below_k_the_count_is_exact_and_from_k_on_an_estimate_by_the_kth_hash() -> None:
    k = 4
    for n in range(1, 10):
        hashes = sorted(mixed(one) for one in range(n))
        expected = float(n) if n < k else (k - 1) / (float(hashes[k - 1]) / 2.0**64)
        view = view_of(DType.INT64, Function.COUNT_DISTINCT, k=k)
        assert features(view, pa.array([*range(n), 0], pa.int64())) == [expected]


def test_3_9_an_event_that_one_column_cannot_sum_does_not_count_for_any_aggregate() -> None:
    functions = (Function.COUNT, Function.SUM, Function.MAX, Function.LAST, Function.COUNT_DISTINCT)
    values = pa.array([1.5, 1e308, -math.inf, 2.0**62, 2.5])
    assert features(view_of(DType.FLOAT64, *functions), values) == [2.0, 4.0, 2.5, 2.5, 2.0]
    # Where nothing is summed, all of them count.
    found = features(view_of(DType.FLOAT64, Function.COUNT, Function.MAX, Function.LAST), values)
    assert found == [5.0, 1e308, 2.5]


@pytest.mark.parametrize(("functions", "bits"), [((Function.SUM,), 62), ((Function.SUM, Function.STD), 46)])
def test_3_9_the_range_is_of_the_scaled_integer(functions: tuple[Function, ...], bits: int) -> None:
    view = view_of(DType.INT64, *functions, Function.COUNT, scale=1)
    inside = (2**bits - 1) // 10
    for value, counts in ((inside, 1.0), (-inside, 1.0), (inside + 1, 0.0), (-inside - 1, 0.0), (-(2**63), 0.0)):
        assert features(view, pa.array([value], pa.int64()))[-1] == counts
