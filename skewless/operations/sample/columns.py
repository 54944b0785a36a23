"""Columns of made-up tables, and the lengths of time they are made of, microseconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
Integers = npt.NDArray[np.int64]
Real = npt.NDArray[np.float64]


def times(values: npt.NDArray[Any]) -> pa.Array:
    """Return microseconds since 1970 as times with the zone UTC."""
    return pa.array(values.astype(np.int64), pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def names(pattern: str, numbers: npt.NDArray[Any]) -> pa.Array:
    """Return numbers in a pattern such as ``shop-{:02d}``."""
    return pa.array([pattern.format(number) for number in numbers.tolist()], pa.string())


def next_midnight(values: Integers, days: int) -> Integers:
    """Return the midnight that ends a time's day, some days later."""
    return (values // DAY + 1 + days) * DAY


def grid(rows: int, columns: int) -> tuple[Integers, Integers]:
    """Return every pair of a row and a column, each of shape ``(rows * columns,)``."""
    pairs = np.indices((rows, columns)).reshape(2, -1)
    return pairs[0], pairs[1]


def chance_of(odds: Real) -> Real:
    """Return probabilities of log odds."""
    return np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float64)


def lateness(rng: np.random.Generator, n: int, share: float, longest: int) -> Integers:
    """Return how long events take to arrive: a second, and for a share of them minutes to hours."""
    late = np.exp(rng.uniform(np.log(5 * MINUTE), np.log(longest), n))
    return np.where(rng.random(n) < share, late, SECOND).astype(np.int64)
