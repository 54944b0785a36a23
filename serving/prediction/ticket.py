"""A question under way, and the questions that are scored together."""

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

Done = Callable[[ScoredSlice | SkewlessError], None]


class Ticket:
    """A question that waits for its answer.

    Args:
        done: told the answer, or why there is none; once.

    Attributes:
        open: nothing has been answered.
        waits: and nobody is about to: it is not being scored beside the event loop, nor logged before its reply.
    """

    __slots__ = ("_done", "_timer", "began", "open", "question", "waits")

    def __init__(self, question: ScoringRequest, done: Done) -> None:
        self.question = question
        self.began = time.perf_counter()
        self.open = self.waits = True
        self._done = done
        self._timer: asyncio.TimerHandle | None = None

    @property
    def n(self) -> int:
        """Return the number of rows."""
        return self.question.n

    def alarm(self, timer: asyncio.TimerHandle) -> None:
        """Take the timer of its deadline, which is cancelled when the ticket is settled."""
        self._timer = timer

    def settle(self, answer: ScoredSlice | SkewlessError) -> bool:
        """Give the answer; return whether it was the first: what comes later is dropped."""
        if not self.open:
            return False
        self.open = self.waits = False
        if self._timer is not None:
            self._timer.cancel()
        self._done(answer)
        return True


class Group:
    """Tickets for one model that are evaluated at one time.

    Args:
        t: microseconds, a whole millisecond.
        contributions: they are wanted.
        arm: what the model answers as; None: nothing was routed.
        stored: what was read for them and for the arm's shadows; None: for no shadows.

    Attributes:
        narrow: all of them, or none, came with floats of fewer bits than the model's.
    """

    __slots__ = ("_ask", "_names", "arm", "contributions", "model", "n", "narrow", "stored", "t", "tickets")

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
        self.narrow = bool(tickets) and tickets[0].question.narrow  # none is left where all were dealt with
        self.n = sum([ticket.question.n for ticket in tickets])
        self._ask: ParsedRows | None = None
        self._names: list[bytes | None] | None = None

    @property
    def waiting(self) -> Group:
        """Return the group without the tickets that were dealt with meanwhile."""
        if all(ticket.waits for ticket in self.tickets):
            return self
        return self._of([ticket for ticket in self.tickets if ticket.waits])

    @property
    def apart(self) -> list[Group]:
        """Return each ticket as a group of its own."""
        return [self._of([ticket]) for ticket in self.tickets]

    @property
    def origin(self) -> LoadColumns:
        """What the prediction log says of their predictions."""
        return self.model.origin if self.arm is None else self.arm.origin

    def of(self, shadow: Arm) -> Group:
        """Return the same rows as a shadow sees them."""
        return Group(shadow.model, self.t, False, self.tickets, shadow)  # noqa: FBT003 - as above

    def _of(self, tickets: Sequence[Ticket]) -> Group:
        return Group(self.model, self.t, self.contributions, tickets, self.arm, self.stored)

    def take(self) -> None:
        """Note that its tickets are about to be answered: nothing else is begun for them."""
        for ticket in self.tickets:
            ticket.waits = False

    @property
    def ask(self) -> ParsedRows:
        """The rows, as a reader and a transform take them; made once."""
        if self._ask is None:
            self._ask = self.model.parser.build_rows(
                _end_to_end([ticket.question.columns or {} for ticket in self.tickets])
            )
        return self._ask

    @property
    def names(self) -> list[bytes | None]:
        """The keys of all that is read for them; None: nothing to read; made once."""
        if self._names is None:
            self._names = self.model.reader.names(self.ask.keys, self.n)
        return self._names

    @property
    def vectors(self) -> Matrix:
        """Return the vectors that callers sent, one below the other."""
        parts = [ticket.question.vectors for ticket in self.tickets]
        found = [part for part in parts if part is not None]
        return found[0] if len(found) == 1 else np.concatenate(found)

    @property
    def rows(self) -> Iterator[object]:
        """Yield each row as it came."""
        return chain.from_iterable(ticket.question.rows for ticket in self.tickets)


def grouped(tickets: Sequence[Ticket], t: int) -> list[Group]:
    """Return tickets by what is evaluated together; ``t`` is the time of those that name none."""
    found: dict[tuple[int, int, int, bool, bool], list[Ticket]] = {}
    for ticket in tickets:
        if ticket.waits:
            question = ticket.question
            options = question.options
            moment = t if options.as_of is None else options.as_of
            key = (id(question.model), id(question.arm), moment, options.contributions, question.narrow)
            found.setdefault(key, []).append(ticket)
    return [Group(same[0].question.model, *key[2:4], same, same[0].question.arm) for key, same in found.items()]


def _end_to_end(parts: Sequence[Mapping[str, Sequence[Any]]]) -> Mapping[str, Sequence[Any]]:
    """Return columns, one part after the other."""
    if len(parts) == 1:
        return parts[0]
    return {name: list(chain.from_iterable(part[name] for part in parts)) for name in parts[0]}
