"""Drift of 200,000 live rows of 20 features: ours against Evidently, on shifts that are known."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import drift_entrants
from benchmarks.contestant import Contestant, Race, race
from benchmarks.environments import python_of
from benchmarks.meter import Report
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled

OWN, EVIDENTLY = "skewless", "Evidently 0.7, PSI"
FEATURES = 20
# What is done to the live values of a column; the others stay as they were in training.
SHIFTS = {"x3": "mean", "x7": "spread", "x11": "scale", "k13": "shares", "k16": "shares"}
_FACTORS = {"spread": 2.0, "scale": 1_000.0}
Values = npt.NDArray[np.float64]
Columns = dict[str, Values]


def run() -> list[Result]:
    """Judge 200 k live rows against as many of training; both must name the columns that were shifted, and no other."""
    n = scaled(200_000, least=2_000)
    with tempfile.TemporaryDirectory() as folder:
        trained, live = Path(folder) / "trained.parquet", Path(folder) / "live.parquet"
        pq.write_table(pa.table(columns(n, seed=1)), trained)
        pq.write_table(pa.table(shifted(columns(n, seed=2))), live)
        arguments = {"trained": str(trained), "live": str(live), "wanted": sorted(SHIFTS)}
        done = race(
            [
                Contestant(name=OWN, entrant=drift_entrants.skewless, arguments=arguments),
                Contestant(
                    name=EVIDENTLY,
                    entrant=drift_entrants.evidently,
                    arguments=arguments,
                    python=python_of("evidently"),
                    rounds=1,
                ),
            ],
            rounds(5),
        )
    return _results(done, f"drift: {n:,} rows x {FEATURES} features")


def columns(n: int, seed: int) -> Columns:
    """Return 12 skewed or symmetric numbers, one in four with nulls, and 8 category codes."""
    rng = np.random.default_rng(seed)
    found: Columns = {}
    for i in range(12):
        values = rng.normal(size=n) if i % 2 else rng.gamma(2.0, 10.0, n)
        found[f"x{i}"] = np.where(rng.random(n) < 0.05, np.nan, values) if i % 4 == 0 else values
    for i in range(12, FEATURES):
        found[f"k{i}"] = rng.choice(8, n, p=_shares(i)).astype(np.float64)
    return found


def shifted(found: Columns) -> Columns:
    """Return the columns with ``SHIFTS`` done to them."""
    rng = np.random.default_rng(3)
    return found | {name: _changed(found[name], kind, rng) for name, kind in SHIFTS.items()}


def _changed(values: Values, kind: str, rng: np.random.Generator) -> Values:
    if kind == "shares":
        return np.where(rng.random(len(values)) < 0.4, 0.0, values)
    return values + 1.0 if kind == "mean" else values * _FACTORS[kind]


def _shares(i: int) -> Values:
    return np.asarray(np.random.default_rng(i).dirichlet(np.full(8, 5.0)))


def _results(done: Race, name: str) -> list[Result]:
    return [
        Result(
            name=f"{name}, time",
            value=done.median(OWN),
            unit="s",
            against=EVIDENTLY,
            ratio=done.ratio(OWN, EVIDENTLY),
            target=1 / 20,
        ),
        Result(
            name=f"{name}, memory",
            value=done.median(OWN, Report.peak_bytes) / 1e6,
            unit="MB",
            against=EVIDENTLY,
            ratio=done.ratio(OWN, EVIDENTLY, Report.peak_bytes),
        ),
    ]
