"""Requests whose rows are served by several versions: split by version, and merged again for the reply."""

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
from skewless.serving.prediction.ticket import SliceCallback


class MergedSlices(NamedTuple):
    """Scores of several versions for one request.

    Args:
        parts: one slice for each version.
        rows: for each part, the indices of its rows in the request.
    """

    parts: Sequence[ScoredSlice]
    rows: Sequence[Sequence[int]]

    @property
    def n(self) -> int:
        """Return the number of rows."""
        return sum(part.n for part in self.parts)

    @property
    def t(self) -> int:
        """Evaluation time, microseconds; the latest, if a deadline made some parts differ."""
        return max(part.t for part in self.parts)

    @property
    def degraded(self) -> bool:
        """Whether a view did not answer and nulls were scored, in at least one part."""
        return any(part.degraded for part in self.parts)

    @property
    def narrow(self) -> bool:
        """Whether float64 inputs arrived as floats of fewer bits."""
        return any(part.narrow for part in self.parts)

    @property
    def versions(self) -> list[str]:
        """Return the version that served each row."""
        versions = [""] * self.n
        for part, rows in zip(self.parts, self.rows, strict=True):
            for row in rows:
                versions[row] = part.model.version
        return versions


ReplyCallback = Callable[[ScoredSlice | MergedSlices | SkewlessError], None]


class SplitRequest:
    """Collect the scores of all parts of a request; the first error becomes the reply to the complete request.

    Args:
        rows: for each part, the indices of its rows.
        on_reply: called once, with the merged scores or the error.
    """

    def __init__(self, rows: Sequence[Sequence[int]], on_reply: ReplyCallback) -> None:
        self._rows = rows
        self._on_reply = on_reply
        self._parts: dict[int, ScoredSlice] = {}
        self._is_done = False

    def part_callbacks(self) -> list[SliceCallback]:
        """Return a callback for each part."""
        return [partial(self._add_part, i) for i in range(len(self._rows))]

    def _add_part(self, i: int, outcome: ScoredSlice | SkewlessError) -> None:
        if self._is_done:
            return
        if isinstance(outcome, SkewlessError):
            self._is_done = True
            self._on_reply(outcome)
            return
        self._parts[i] = outcome
        if len(self._parts) == len(self._rows):
            self._is_done = True
            self._on_reply(MergedSlices([self._parts[index] for index in range(len(self._rows))], self._rows))


def split_request(request: ScoringRequest, routing: Routing) -> list[tuple[ScoringRequest, Sequence[int]]]:
    """Return one request for each version that serves rows of a request with entity keys, with the rows' indices."""
    if request.columns is None:
        raise TypeError(request)  # a vector has no sticky keys to route by
    return [_select_rows(request, share) for share in routing.shares(request.columns, request.n)]


def route_to_arm(request: ScoringRequest, arm: Arm) -> ScoringRequest:
    """Return a request for the version of an arm."""
    # Not _replace: it takes three times as long, and nearly every request passes here.
    return ScoringRequest(
        arm.model, request.n, request.rows, request.columns, None, request.options, None, arm, request.narrow
    )


def _select_rows(request: ScoringRequest, share: ArmRows) -> tuple[ScoringRequest, Sequence[int]]:
    arm, rows = share
    if rows is None or request.columns is None:
        return route_to_arm(request, arm), range(request.n)
    pick = _row_picker(rows)
    part = request._replace(
        model=arm.model,
        n=len(rows),
        rows=pick(request.rows),
        columns={name: pick(values) for name, values in request.columns.items()},
        arm=arm,
        routing=None,
    )
    return part, rows


def _row_picker(rows: Sequence[int]) -> Callable[[Sequence[object]], list[object]]:
    if len(rows) == 1:
        return lambda values: [values[rows[0]]]
    pick = itemgetter(*rows)
    return lambda values: list(pick(values))
