"""Explains one logged prediction: the origin, status and contribution of each feature, and the nearest bound."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from skewless.contract.columns import REQUEST
from skewless.contract.errors import RequestError
from skewless.contract.plain_record import PlainRecord
from skewless.contract.rows import NO_TIME
from skewless.contract.status import Status
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.records.predictions.reader import LoggedViewRead, PredictionEntry

Bounds = Mapping[str, tuple[float | None, float | None]]
"""Feature -> lowest and highest allowed value; None: no limit on that side."""


@dataclass(frozen=True, kw_only=True)
class ExplainedFeature:
    """One feature of the vector.

    Args:
        group: its view or transform, or ``request``.
        value: the value in the vector; a category as text, None if missing.
        status: for a view's feature a Status; otherwise GIVEN (sent), COMPUTED (by a transform) or NULL.
        age_s: age of the view's row at the prediction, seconds; None without a row.
        contribution: its contribution to the margin; None if the model has no contributions.
    """

    feature: str
    group: str
    value: float | str | None
    status: str
    age_s: float | None
    contribution: float | None


@dataclass(frozen=True, kw_only=True)
class ExplainedRead:
    """The read of one view, with its row of the accepted log.

    Args:
        hash: identity of the view's stored rows.
        event_us: event time, microseconds; None without a row.
        created_us: created time; None without one.
        position, run: position and run of the row in the accepted log.
        applied: for a windowed view, the last applied position by log partition (its 64-bit number).
    """

    view: str
    hash: str
    status: str
    age_s: float | None
    event_us: int | None
    created_us: int | None
    position: int | None
    run: int | None
    applied: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Explanation(PlainRecord):
    """The explanation of one prediction.

    Args:
        inputs: the caller's input: an object, or a vector as a list.
        output: index of the explained output: the largest of several.
        bias: the margin without any feature; None without contributions.
        margin: raw output of the model: the sum of the bias and all contributions, except for rounding.
        features: the largest contributions first.
    """

    score: float
    scores: list[float]
    output: int
    margin: float
    bias: float | None
    inputs: Any
    features: list[ExplainedFeature]
    reads: list[ExplainedRead]


def explain(model: ServedModel, entry: PredictionEntry) -> Explanation:
    """Return the explanation of one logged prediction, by the package that served it."""
    logged = entry.logged
    matrix = np.ascontiguousarray(logged.vectors)
    outputs = np.atleast_1d(logged.scores[0])
    output = int(outputs.argmax())
    margin = float(np.atleast_1d(model.runtime.margin(matrix)[0])[output])
    parts = _contributions(model, matrix, output)
    reads = explain_reads(entry)
    features = _features(model, entry, {read.view: read for read in reads}, parts)
    return Explanation(
        score=float(logged.score[0]),
        scores=outputs.tolist(),
        output=output,
        margin=margin,
        bias=None if parts is None else float(parts[-1]),
        inputs=json.loads(logged.inputs[0]),
        features=sorted(features, key=lambda item: -abs(item.contribution or 0.0)),
        reads=reads,
    )


def explain_reads(entry: PredictionEntry) -> list[ExplainedRead]:
    """Return the read of each view, from the log alone."""
    t = int(entry.logged.t[0])
    return [_read(view, read, t) for view, read in entry.logged.reads.items()]


def _contributions(model: ServedModel, matrix: npt.NDArray[np.float64], output: int) -> npt.NDArray[np.float64] | None:
    try:
        values = model.runtime.contributions(matrix)[0]
    except RequestError:  # this kind of model has no contributions
        return None
    return np.asarray(values[output] if values.ndim > 1 else values, dtype=np.float64)


def _features(
    model: ServedModel,
    entry: PredictionEntry,
    reads: Mapping[str, ExplainedRead],
    parts: npt.NDArray[np.float64] | None,
) -> list[ExplainedFeature]:
    vocabularies = model.package.plan["vocabularies"]
    features = []
    for i, ref in enumerate(model.assembler.refs):
        read = reads.get(ref.group)
        value = shown_value(float(entry.logged.vectors[0, i]), vocabularies.get(ref.label))
        features.append(
            ExplainedFeature(
                feature=ref.label,
                group=ref.group,
                value=value,
                status=_status(ref.group, read, value, given=entry.logged.source == "vectors"),
                age_s=read.age_s if read else None,
                contribution=None if parts is None else float(parts[i]),
            )
        )
    return features


def shown_value(number: float, words: list[str] | None) -> float | str | None:
    """Return a value of a vector; a category as text, None if missing.

    Args:
        words: categories in the order of their codes; None: a number.
    """
    if math.isnan(number):
        return None
    if words is None or number not in range(len(words)):  # a vector from a caller may have any number
        return number
    return words[int(number)]


def _status(group: str, read: ExplainedRead | None, value: object, *, given: bool) -> str:
    if read is not None and read.status != Status.PRESENT.name:
        return read.status
    if value is None:
        return Status.NULL.name
    if read is not None:
        return Status.PRESENT.name
    return "GIVEN" if given or group == REQUEST else "COMPUTED"


def _read(view: str, read: LoggedViewRead, t: int) -> ExplainedRead:
    event, created, seq, run = (
        int(getattr(read.versions, name)[0]) for name in ("event_ts", "created_ts", "seq", "run_id")
    )
    has_row = seq >= 0
    slots = read.applied
    applied = {} if slots is None else zip(slots.partition.tolist(), slots.seq.tolist(), strict=True)
    return ExplainedRead(
        view=view,
        hash=read.hashes[0],
        status=Status(int(read.status[0])).name,
        age_s=(t - event) / 1_000_000 if has_row else None,
        event_us=event if has_row else None,
        created_us=created if has_row and created != NO_TIME else None,
        position=seq if has_row else None,
        run=run if has_row else None,
        # States have the signed number of a partition (SEMANTICS 3.3); unsigned, each has 16 digits.
        applied={f"{partition & (2**64 - 1):016x}": last for partition, last in applied},
    )


@dataclass(frozen=True, kw_only=True)
class NearestBound:
    """One side of a feature's bounds, and the distance of a value to it.

    Args:
        slack: distance from the value to the bound as a share of the feature's spread; below 0: the value is outside.
    """

    feature: str
    side: Literal["low", "high"]
    bound: float
    value: float
    slack: float

    @property
    def broken(self) -> bool:
        """Return whether the value is outside."""
        return self.slack < 0

    def line(self) -> str:
        """Return a sentence about it."""
        where = "outside" if self.broken else "inside"
        return (
            f"{self.feature} = {self.value:g} is {where} its {self.side} bound {self.bound:g},"
            f" by {abs(self.slack):.1%} of its spread"
        )


def nearest_bound(bounds: Bounds, values: Mapping[str, float], spreads: Mapping[str, float]) -> NearestBound | None:
    """Return the bound with the least slack; None if no value is bounded.

    Args:
        bounds: bounds by feature.
        values: values of one vector; NaN is missing and ignored.
        spreads: by feature, its highest minus its lowest value; features without an entry use their bounds' spread.

    >>> nearest = nearest_bound({"x": (0.0, 10.0), "y": (None, 5.0)}, {"x": 9.0, "y": 6.0}, {"y": 4.0})
    >>> nearest.feature, nearest.side, nearest.slack
    ('y', 'high', -0.25)
    """
    candidates = [
        NearestBound(feature=name, side=side, bound=bound, value=values[name], slack=gap / _spread(spreads, name, pair))
        for name, pair in bounds.items()
        if not math.isnan(values.get(name, math.nan))
        for side, bound, gap in _sides(pair, values[name])
    ]
    return min(candidates, key=lambda item: item.slack, default=None)


def _sides(pair: tuple[float | None, float | None], value: float) -> list[tuple[Literal["low", "high"], float, float]]:
    low, high = pair
    sides: list[tuple[Literal["low", "high"], float, float]] = []
    if low is not None:
        sides.append(("low", low, value - low))
    if high is not None:
        sides.append(("high", high, high - value))
    return sides


def _spread(spreads: Mapping[str, float], name: str, pair: tuple[float | None, float | None]) -> float:
    """Return the unit of a feature's distances, above zero."""
    low, high = pair
    if spreads.get(name, 0.0) > 0:
        return spreads[name]
    if low is not None and high is not None and high > low:
        return high - low
    return max(abs(low or 0.0), abs(high or 0.0)) or 1.0
