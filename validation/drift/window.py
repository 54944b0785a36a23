"""A window of live predictions held against the training profile of their model version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from skewless.contract.lifecycle import Watch
from skewless.infra.predictions.live import Live
from skewless.validation.drift.histograms import Bins, Floats, Histograms
from skewless.validation.drift.verdicts import ColumnDrift, compare

SCORE, LABEL = "score", "label"


def compare_window(
    profile: Mapping[str, Any],
    names: Sequence[str],
    pieces: Iterable[Live],
    labels: Floats,
    watch: Watch,
    repeats: Mapping[str, float],
) -> tuple[int, dict[str, ColumnDrift]]:
    """Return how many predictions there were, and the drift of each feature, of score and label if profiled.

    Args:
        profile: of the package; see ``skewless.training.profile``.
        names: of the features, in the order of the vectors.
        pieces: the live predictions; none of them stays in memory.
        labels: those that are known of the window, shape ``(n,)``.
        repeats: see ``compare``.
        watch: the limits. Features, score and label are judged as one family: ``watch.alpha`` is for all of them.
    """
    columns = {name: profile["features"][name] for name in names}
    columns |= {name: profile[name] for name in (SCORE, LABEL) if profile.get(name)}
    bins = Bins.of_profile(columns)
    rows, now = 0, Histograms.empty(bins).plus({LABEL: labels})
    for piece in pieces:
        rows += len(piece.scores)
        now = now.plus(dict(zip(names, piece.vectors.T, strict=True)) | {SCORE: piece.scores})
    compared = compare(Histograms.of_profile(bins, columns), now, watch, repeats)
    return rows, {column.name: column for column in compared}
