"""Requests in flight, and groups of requests that are scored together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from skewless.contract.errors import SkewlessError
from skewless.contract.request import ParsedRows
from skewless.contract.vector import Matrix
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.predictions.record import LoadColumns
from skewless.serving.prediction.arm import Arm
from skewless.serving.prediction.feature_reads import StoredRows
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.scoring_request import ScoringRequest

SliceCallback = Callable[[ScoredSlice | SkewlessError], None]


class Ticket:
    """A request that waits for its reply.

    Args:
        on_reply: called once, with the scores or an error.

    Attributes:
        is_open: no reply has been given.
        is_waiting: a reply is not in preparation either: no thread is scoring it, and no log write precedes its reply.
    """

    __slots__ = ("_on_reply", "_timer", "is_open", "is_waiting", "request", "started_at")

    def __init__(self, request: ScoringRequest, on_reply: SliceCallback) -> None:
        self.request = request
        self.started_at = time.perf_counter()
        self.is_open = self.is_waiting = True
        self._on_reply = on_reply
        self._timer: asyncio.TimerHandle | None = None

    @property
    def n(self) -> int:
        """Return the number of rows."""
        return self.request.n

    def set_timer(self, timer: asyncio.TimerHandle) -> None:
        """Attach the timer of the deadline, which the reply cancels."""
        self._timer = timer

    def settle(self, result: ScoredSlice | SkewlessError) -> bool:
        """Give the reply and return whether it was the first; later replies are dropped."""
        if not self.is_open:
            return False
        # Before the callback: whatever it does, no second reply can follow.
        self.is_open = self.is_waiting = False
        if self._timer is not None:
            self._timer.cancel()
        self._on_reply(result)
        return True


class Group:
    """Tickets of one model that are evaluated together, at one time.

    Args:
        t: evaluation time, microseconds, a multiple of a millisecond.
        contributions: whether contributions are requested.
        arm: role of the model under a traffic policy; None: the requests were not routed.
        stored: rows read for them and for the arm's shadows; None: not read yet.

    Attributes:
        narrow: whether float64 inputs arrived as floats of fewer bits; equal for all tickets.
    """

    __slots__ = ("_keys", "_parsed_rows", "arm", "contributions", "model", "n", "narrow", "stored", "t", "tickets")

    def __init__(
        self,
        model: ServedModel,
        t: int,
        contributions: bool,  # noqa: FBT001 - a fact, no switch
        tickets: Sequence[Ticket],
        arm: Arm | None = None,
        stored: StoredRows | None = None,
    ) -> None:
        self.model = model
        self.t = t
        self.contributions = contributions
        self.tickets = tickets
        self.arm = arm
        self.stored = stored
        self.narrow = bool(tickets) and tickets[0].request.narrow  # a group is empty if all its tickets have replies
        self.n = sum([ticket.request.n for ticket in tickets])
        self._parsed_rows: ParsedRows | None = None
        self._keys: list[bytes | None] | None = None

    @property
    def pending(self) -> Group:
        """Return the group without the tickets that have a reply by now."""
        if all(ticket.is_waiting for ticket in self.tickets):
            return self
        return self._with_tickets([ticket for ticket in self.tickets if ticket.is_waiting])

    @property
    def ticket_groups(self) -> list[Group]:
        """Return one group for each ticket."""
        return [self._with_tickets([ticket]) for ticket in self.tickets]

    @property
    def origin(self) -> LoadColumns:
        """Columns of the prediction log that identify the version and its role."""
        return self.model.origin if self.arm is None else self.arm.origin

    def for_arm(self, shadow: Arm) -> Group:
        """Return the group with the same rows for a shadow version."""
        return Group(shadow.model, self.t, False, self.tickets, shadow)  # noqa: FBT003 - as above

    def _with_tickets(self, tickets: Sequence[Ticket]) -> Group:
        return Group(self.model, self.t, self.contributions, tickets, self.arm, self.stored)

    def claim(self) -> None:
        """Mark the tickets as being replied to, so that a deadline does not start a second evaluation."""
        for ticket in self.tickets:
            ticket.is_waiting = False

    @property
    def parsed_rows(self) -> ParsedRows:
        """The rows in the form that readers and transforms use; computed once."""
        if self._parsed_rows is None:
            self._parsed_rows = self.model.parser.build_rows(
                _end_to_end([ticket.request.columns or {} for ticket in self.tickets])
            )
        return self._parsed_rows

    @property
    def keys(self) -> list[bytes | None]:
        """The keys to read from the store; None: nothing to read; computed once."""
        if self._keys is None:
            self._keys = self.model.reader.names(self.parsed_rows.keys, self.n)
        return self._keys

    @property
    def vectors(self) -> Matrix:
        """Return the vectors that callers sent, concatenated."""
        parts = [ticket.request.vectors for ticket in self.tickets]
        vectors = [part for part in parts if part is not None]
        return vectors[0] if len(vectors) == 1 else np.concatenate(vectors)

    @property
    def rows(self) -> Iterator[object]:
        """Yield each row as received."""
        return chain.from_iterable(ticket.request.rows for ticket in self.tickets)


def group_tickets(tickets: Sequence[Ticket], t: int) -> list[Group]:
    """Return tickets grouped by model, arm, time and options; ``t`` is the time of requests without ``as_of``."""
    groups: dict[tuple[int, int, int, bool, bool], list[Ticket]] = {}
    for ticket in tickets:
        if ticket.is_waiting:
            request = ticket.request
            options = request.options
            evaluated_at = t if options.as_of is None else options.as_of
            # By identity, which is cheap; the tickets keep model and arm alive, so an id is not used twice.
            key = (id(request.model), id(request.arm), evaluated_at, options.contributions, request.narrow)
            groups.setdefault(key, []).append(ticket)
    return [
        Group(members[0].request.model, *key[2:4], members, members[0].request.arm) for key, members in groups.items()
    ]


def _end_to_end(parts: Sequence[Mapping[str, Sequence[Any]]]) -> Mapping[str, Sequence[Any]]:
    """Return the columns of all parts, concatenated."""
    if len(parts) == 1:
        return parts[0]
    return {name: list(chain.from_iterable(part[name] for part in parts)) for name in parts[0]}
