"""Whether decisions are right: one for each event, vectors as of the log before it, and the model's scores."""

# ruff: noqa: PLC0415 - loaded by contestants

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.contestant import ContestantError
from benchmarks.deciding_project import load_champion
from benchmarks.ingests import KEYS
from benchmarks.window_events import SCALE

if TYPE_CHECKING:
    import pyarrow as pa

    from skewless.contract.windows.view import WindowView
    from skewless.infra.ingest.streams.streams import Streams

_COMPARED = 200
_MS = 1_000


def check_decisions(streams: Streams, begin: int, n: int) -> dict[str, int]:
    """Check the decisions of the events from a position of the log on; return the position of each, by its id.

    Raises:
        ContestantError: an event has no decision, or several; a vector of some or a score of any is wrong.
    """
    import lightgbm
    import pyarrow as pa

    from skewless.infra.log.partition_log import PartitionLog
    from skewless.infra.records.predictions.segments import PREDICTIONS

    rows = pa.concat_tables(PartitionLog(streams.state, PREDICTIONS).read(columns=["id", "event", "vector", "score"]))
    event = rows["event"].combine_chunks()
    seq = event.field("seq").to_numpy()
    if not np.array_equal(np.sort(seq), np.arange(begin, begin + n)):
        raise ContestantError(f"{len(seq)} decisions, {len(np.unique(seq))} of them about different events, of {n}")
    vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(n, -1)
    scores, model = rows["score"].to_numpy(), load_champion(streams)
    booster = lightgbm.Booster(model_file=str(model.package.model_file))
    if not np.array_equal(model.runtime.score(vectors), scores):
        raise ContestantError("a score is not that of the served model for the logged vector")
    if not np.allclose(booster.predict(vectors, num_threads=1), scores, rtol=0, atol=model.origin.tolerance):
        raise ContestantError("a score is not LightGBM's for the logged vector")
    accepted, views = _accepted(streams), streams.plan.windows
    for i in np.random.default_rng(5).integers(0, n, min(n, _COMPARED)).tolist():
        expected = [value for view in views for value in _features(accepted, view, int(seq[i]))]
        if not np.array_equal(vectors[i], expected, equal_nan=True):
            raise ContestantError(f"the vector of the event at position {seq[i]} is not that of the events before it")
    return dict(zip(rows["id"].to_pylist(), seq.tolist(), strict=True))


def check_delivered(decided: dict[str, int], delivered: Collection[str]) -> None:
    """Check that each decision was delivered, and nothing else.

    Raises:
        ContestantError: one is missing or unknown.
    """
    if missing := decided.keys() - set(delivered):
        raise ContestantError(f"{len(missing)} decisions were not delivered")
    if unknown := set(delivered) - decided.keys():
        raise ContestantError(f"{len(unknown)} decisions were delivered that the log does not have")


def accepted_times(streams: Streams) -> np.ndarray:
    """Return when each event was accepted, microseconds, by position."""
    from skewless.infra.log.log_columns import INGEST

    return np.asarray(_accepted(streams)[INGEST].to_numpy())


def _accepted(streams: Streams) -> pa.Table:
    import pyarrow as pa

    from skewless.infra.log.catalog import log_partitions
    from skewless.infra.log.log_columns import EVENT, INGEST
    from skewless.infra.log.partition_log import PartitionLog

    (partition,) = log_partitions(streams.state, "events")
    columns = [*KEYS, "amount", EVENT, INGEST]
    return pa.concat_tables(PartitionLog(streams.state, partition).read(columns=columns)).combine_chunks()


def _features(accepted: pa.Table, view: WindowView, position: int) -> list[float]:
    """Return the features of a view as of just before the event at a position, from the events before it."""
    from skewless.infra.log.log_columns import EVENT

    key = view.keys[0].name
    own = np.flatnonzero(accepted[key].to_numpy()[:position] == accepted[key][position].as_py())
    times = accepted[EVENT].to_numpy()
    t, begins = times[position] // _MS * _MS, times[own] // _MS * _MS
    units = np.rint(accepted["amount"].to_numpy()[own] * 10**SCALE).astype(np.int64)
    values = []
    for item in view.aggregates:
        left = (t - item.window_us) // item.hop_us * item.hop_us
        inside = units[(begins >= left) & (begins < t)].tolist()
        exact: dict[str, Fraction | float] = {
            "count": Fraction(len(inside)),
            "sum": np.nan,
            "mean": np.nan,
            "max": np.nan,
        }
        if inside:
            whole = Fraction(sum(inside), 10**SCALE)
            exact |= {"sum": whole, "mean": whole / len(inside), "max": Fraction(max(inside), 10**SCALE)}
        values.append(float(exact[item.function.value]))
    return values
