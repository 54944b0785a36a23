"""Measures the gain of a new version over the champion in slices of the test rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.render import count_text
from skewless.contract.spec import Gate
from skewless.contract.status import BoolArray, Int64Array
from skewless.validation.evaluation.bootstrap import MetricGain, ScorePair, normal_gain

MIN_ROWS = 100
MIN_EFFECTIVE_ROWS = 10  # fewest rows of the rarer class, or queries; with fewer, intervals are unreliable
DEFAULT_CONFIDENCE = 0.95
# Fewer than for percentiles: a standard error needs fewer, and each slice has its own resamples.
_RESAMPLES = 400


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceColumn:
    """A column that divides the rows into slices.

    Args:
        values: distinct values of the column as text, ``null`` for a missing value.
        codes: ``(n,)`` int64, index of each row's value.
    """

    values: tuple[str, ...]
    codes: Int64Array

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> SliceColumn:
        """Return a column's values, numbered by first appearance.

        >>> SliceColumn.of(pa.chunked_array([["b", None, "b"]])).codes.tolist()
        [0, 1, 0]
        """
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        values = ("null" if value is None else str(value) for value in encoded.dictionary.to_pylist())
        return cls(values=tuple(values), codes=np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int64))

    def only(self, mask: BoolArray) -> SliceColumn:
        """Return the rows of a mask."""
        return replace(self, codes=self.codes[mask])


@dataclass(frozen=True, kw_only=True)
class SliceGain:
    """The gain in one slice.

    Args:
        column: the key or request field.
        value: its value in the slice, as text.
        gain: the gain, with an interval that holds for all slices together.
        lost: whether the complete interval is below the gate's tolerance.
    """

    column: str
    value: str
    gain: MetricGain
    lost: bool

    @property
    def sentence(self) -> str:
        """Return a sentence about the slice's loss."""
        gain = self.gain
        return (
            f"{self.column} {self.value}: {gain.metric} {gain.candidate:.4f} against {gain.champion:.4f}"
            f" on {count_text(gain.rows, 'row')}, the gain at most {gain.high:+.4f}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"column": self.column, "value": self.value, "lost": self.lost, **self.gain.as_dict()}


def measure_slice_gains(
    pair: ScorePair, columns: Mapping[str, SliceColumn], gate: Gate, seed: int
) -> tuple[SliceGain, ...]:
    """Return the gain in every slice with enough rows, the worst first.

    The worst of many slices is bad by chance alone. So the intervals have a Bonferroni correction: all of them hold at
    once with the gate's confidence (0.95 if it has none). Holm's method would block the same versions, because one
    lost slice is enough.

    Args:
        pair: scores of the test rows.
        columns: slice columns of these rows.
        gate: has the metric, confidence and slice tolerance.
        seed: seed of the resamples.
    """
    slices = list(_slices(pair, columns))
    alpha = 1.0 - (DEFAULT_CONFIDENCE if gate.confidence is None else gate.confidence)
    # Bonferroni: each of the slices gets an equal share of the error probability.
    confidence = 1.0 - alpha / max(1, len(slices))
    gains = []
    for column, value, part in slices:
        gain = normal_gain(part, gate.metric, confidence=confidence, resamples=_RESAMPLES, seed=seed)
        if gain.high is not None:
            lost = gain.high < -gate.slice_tolerance
            gains.append(SliceGain(column=column, value=value, gain=gain, lost=lost))
    return tuple(sorted(gains, key=lambda each: (not each.lost, each.gain.high, each.column, each.value)))


def _slices(pair: ScorePair, columns: Mapping[str, SliceColumn]) -> Iterator[tuple[str, str, ScorePair]]:
    for name, column in columns.items():
        counts = np.bincount(column.codes, minlength=len(column.values))
        for code in np.flatnonzero(counts >= MIN_ROWS).tolist():
            part = pair.only(column.codes == code)
            if _effective_rows(part) >= MIN_EFFECTIVE_ROWS:
                yield name, column.values[code], part


def _effective_rows(pair: ScorePair) -> int:
    """Return the number of queries, of rows in the rarer class, or of rows, by task."""
    if pair.groups is not None:
        return int(np.unique(pair.groups).size)
    if pair.task == "binary":
        positive = int((pair.labels == 1.0).sum())
        return min(positive, pair.labels.size - positive)
    return int(pair.labels.size)
