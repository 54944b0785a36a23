"""Where a new version loses: its gain over the champion in each value of some keys or request fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.spec import Gate
from skewless.contract.status import BoolArray, Int64Array
from skewless.validation.evaluation.bootstrap import MetricGain, ScorePair, normal_gain

LEAST_ROWS = 100
LEAST_OF_A_KIND = 10  # rows of the rarer class, or queries: below, no interval can be trusted
DEFAULT_CONFIDENCE = 0.95
_RESAMPLES = 400


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceColumn:
    """A column that cuts the rows into slices.

    Args:
        values: of the column as text, ``null`` where it has none.
        codes: ``(n,)`` int64, which of them each row has.
    """

    values: tuple[str, ...]
    codes: Int64Array

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> SliceColumn:
        """Return a column's values, numbered as they first appear.

        >>> SliceColumn.of(pa.chunked_array([["b", None, "b"]])).codes.tolist()
        [0, 1, 0]
        """
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        values = ("null" if value is None else str(value) for value in encoded.dictionary.to_pylist())
        return cls(values=tuple(values), codes=np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int64))

    def only(self, chosen: BoolArray) -> SliceColumn:
        """Return some of the rows."""
        return replace(self, codes=self.codes[chosen])


@dataclass(frozen=True, kw_only=True)
class SliceGain:
    """The gain in one slice.

    Args:
        column: the key or request field.
        value: its value in the slice, as text.
        gain: with an interval that holds for all slices together.
        lost: whether the whole interval lies beyond what the gate accepts.
    """

    column: str
    value: str
    gain: MetricGain
    lost: bool

    @property
    def sentence(self) -> str:
        """Return what was lost where."""
        found = self.gain
        return (
            f"{self.column} {self.value}: {found.metric} {found.candidate:.4f} against {found.champion:.4f}"
            f" on {found.rows:,} rows, the gain at most {found.high:+.4f}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"column": self.column, "value": self.value, "lost": self.lost, **self.gain.as_dict()}


def slice_gains(pair: ScorePair, columns: Mapping[str, SliceColumn], gate: Gate, seed: int) -> tuple[SliceGain, ...]:
    """Return the gain in every slice with enough rows, the worst first.

    Many slices are looked at, and the worst of many is bad by chance alone: the intervals are those of
    Bonferroni, so that all of them hold at once with the gate's confidence (0.95 where it has none). Holm's
    steps would block the same versions, since one lost slice is enough.

    Args:
        pair: the test rows.
        columns: the columns of these rows.
        gate: its metric, confidence and slice tolerance.
        seed: of the resamples.
    """
    chosen = list(_slices(pair, columns))
    alpha = 1.0 - (DEFAULT_CONFIDENCE if gate.confidence is None else gate.confidence)
    confidence = 1.0 - alpha / max(1, len(chosen))
    found = []
    for column, value, part in chosen:
        gain = normal_gain(part, gate.metric, confidence=confidence, resamples=_RESAMPLES, seed=seed)
        if gain.high is not None:
            lost = gain.high < -gate.slice_tolerance
            found.append(SliceGain(column=column, value=value, gain=gain, lost=lost))
    return tuple(sorted(found, key=lambda each: (not each.lost, each.gain.high, each.column, each.value)))


def _slices(pair: ScorePair, columns: Mapping[str, SliceColumn]) -> Iterator[tuple[str, str, ScorePair]]:
    for name, column in columns.items():
        counts = np.bincount(column.codes, minlength=len(column.values))
        for code in np.flatnonzero(counts >= LEAST_ROWS).tolist():
            part = pair.only(column.codes == code)
            if _fewest(part) >= LEAST_OF_A_KIND:
                yield name, column.values[code], part


def _fewest(pair: ScorePair) -> int:
    """Return the rows of the rarer class, or the queries, or the rows."""
    if pair.groups is not None:
        return int(np.unique(pair.groups).size)
    if pair.task == "binary":
        positive = int((pair.labels == 1.0).sum())
        return min(positive, pair.labels.size - positive)
    return int(pair.labels.size)
