"""A request whose rows several versions answer: taken apart, and put together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from skewless.contract.errors import SkewlessError
from skewless.serving.prediction.arm import Arm
from skewless.serving.prediction.routing import ArmRows, Routing
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.scoring_request import ScoringRequest
from skewless.serving.prediction.ticket import Done


class MergedSlices(NamedTuple):
    """The answers of several versions to one request.

    Args:
        parts: one of each version.
        rows: of each part, the places of its rows in the request.
    """

    parts: Sequence[ScoredSlice]
    rows: Sequence[Sequence[int]]

    @property
    def n(self) -> int:
        """Return the number of rows."""
        return sum(part.n for part in self.parts)

    @property
    def t(self) -> int:
        """The time at which everything was evaluated, microseconds; the latest, if time ran out for some."""
        return max(part.t for part in self.parts)

    @property
    def degraded(self) -> bool:
        """Whether a view did not answer and nulls were scored, in any part."""
        return any(part.degraded for part in self.parts)

    @property
    def narrow(self) -> bool:
        """Whether floats came with fewer bits than the model's."""
        return any(part.narrow for part in self.parts)

    @property
    def versions(self) -> list[str]:
        """Return the version that answered each row."""
        found = [""] * self.n
        for part, rows in zip(self.parts, self.rows, strict=True):
            for row in rows:
                found[row] = part.model.version
        return found


Told = Callable[[ScoredSlice | MergedSlices | SkewlessError], None]


class SplitRequest:
    """Waits for the answers to all parts of a request; the first error is the answer to all of it.

    Args:
        rows: of each part, the places of its rows.
        done: told the answer, once.
    """

    def __init__(self, rows: Sequence[Sequence[int]], done: Told) -> None:
        self._rows = rows
        self._done = done
        self._parts: dict[int, ScoredSlice] = {}
        self._over = False

    def takers(self) -> list[Done]:
        """Return what is told the answer to each part."""
        return [partial(self._take, i) for i in range(len(self._rows))]

    def _take(self, i: int, outcome: ScoredSlice | SkewlessError) -> None:
        if self._over:
            return
        if isinstance(outcome, SkewlessError):
            self._over = True
            self._done(outcome)
            return
        self._parts[i] = outcome
        if len(self._parts) == len(self._rows):
            self._over = True
            self._done(MergedSlices([self._parts[place] for place in range(len(self._rows))], self._rows))


def parted(question: ScoringRequest, routing: Routing) -> list[tuple[ScoringRequest, Sequence[int]]]:
    """Return a question about entities as one to each version that answers rows of it, with their places."""
    if question.columns is None:
        raise TypeError(question)  # whole vectors are not routed
    return [_part(question, share) for share in routing.shares(question.columns, question.n)]


def answered_by(question: ScoringRequest, arm: Arm) -> ScoringRequest:
    """Return a question as one to the version of an arm."""
    # Not _replace: it takes three times as long, and nearly every question comes this way.
    return ScoringRequest(
        arm.model, question.n, question.rows, question.columns, None, question.options, None, arm, question.narrow
    )


def _part(question: ScoringRequest, share: ArmRows) -> tuple[ScoringRequest, Sequence[int]]:
    arm, rows = share
    if rows is None or question.columns is None:
        return answered_by(question, arm), range(question.n)
    pick = _picker(rows)
    part = question._replace(
        model=arm.model,
        n=len(rows),
        rows=pick(question.rows),
        columns={name: pick(values) for name, values in question.columns.items()},
        arm=arm,
        routing=None,
    )
    return part, rows


def _picker(rows: Sequence[int]) -> Callable[[Sequence[object]], list[object]]:
    if len(rows) == 1:
        return lambda values: [values[rows[0]]]
    pick = itemgetter(*rows)
    return lambda values: list(pick(values))
