"""What a score means: the decision that a spec attaches to it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]


def decide(decisions: Mapping[str, float], scores: Scores) -> list[str | None]:
    """Return per score the last decision whose lowest score it reaches; None where it reaches none.

    Args:
        decisions: name -> lowest score, rising, as ``ModelSpec`` keeps them.
        scores: ``(n,)`` float64; NaN reaches nothing.

    >>> decide({"approve": 0.0, "review": 0.5, "decline": 0.9}, np.array([0.5, 0.95, -1.0]))
    ['review', 'decline', None]
    """
    lowest = list(decisions.values())
    names = [None, *decisions]
    # Not numpy's searchsorted: for one row it costs ten times as much.
    return [names[bisect_right(lowest, score)] if score == score else None for score in scores.tolist()]  # noqa: PLR0124 - NaN


def likeliest(classes: Sequence[str], scores: Scores) -> list[str]:
    """Return per row the class with the largest score, the first of equal ones.

    Args:
        classes: names of the columns.
        scores: ``(n, k)`` float64.

    >>> likeliest(("cat", "dog"), np.array([[0.5, 0.5], [0.1, 0.9]]))
    ['cat', 'dog']
    """
    return [classes[column] for column in scores.argmax(axis=1).tolist()]
