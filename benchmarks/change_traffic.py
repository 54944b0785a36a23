"""What comes in while a project is changed: predictions in a closed loop, and events of which some are waited for.

Each runs in a process of its own until a file appears, and measures in seconds of the system's clock, which all share.
When it is under way it leaves a file itself.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.change_project import MODEL, SOURCE, VIEW, Payments, Shape
from benchmarks.contestant import ContestantError
from benchmarks.http_load import Address, closed_loop
from benchmarks.serving_race import refuse_failures

STOP, PREDICTED, COUNTED = "stop", "predicted", "counted"
CONCURRENCY = 16
EVENTS_S = 200
_TICK_S = 0.05
_MARKED_EVERY = 10  # ticks
_LOOK_S = 0.01
_LOST_S = 60.0
_FACTS = ("rate", "p50", "p99")
_FIRST_MARKED = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Second:
    """A window of the load, of about a second.

    Args:
        begun, ended: seconds since 1970.
        answered: how many predictions.
        rate: as many a second.
        p50, p99: milliseconds.
    """

    begun: float
    ended: float
    answered: int
    rate: float
    p50: float
    p99: float


@dataclass(frozen=True, kw_only=True)
class Sent:
    """The events that were sent.

    Args:
        seen: of each event that was waited for, when it was sent (seconds since 1970), and how many seconds it took
            until a prediction counted it.
    """

    payments: Payments
    seen: Sequence[tuple[float, float]]


def predict(signals: Path, address: Address, requests: Sequence[bytes], window_s: float) -> list[Second]:
    """Keep requests under way until told to stop; return the windows.

    Args:
        signals: a folder; ``PREDICTED`` is left there after the first window.

    Raises:
        ContestantError: a request was answered with an error.
    """
    windows: list[Second] = []
    while not (signals / STOP).exists():
        begun = time.time()
        measured = closed_loop(address, requests, concurrency=CONCURRENCY, seconds=window_s)
        refuse_failures(f"the server after {len(windows)} windows", measured)
        facts = measured.facts()
        answered = len(measured.latencies)
        windows.append(
            Second(begun=begun, ended=time.time(), answered=answered, **{name: facts[name] for name in _FACTS})
        )
        (signals / PREDICTED).touch()
    return windows


def send(signals: Path, address: Address, shape: Shape) -> Sent:
    """Send events at a steady rate until told to stop; wait for those of cards that nobody else has.

    Args:
        signals: a folder; ``COUNTED`` is left there when nothing waits any more to be counted.

    Raises:
        ContestantError: events were refused, or one is not counted within a minute.
    """
    sender = _Sender(address=address, shape=shape)
    due, tick = time.time(), 0
    while not (signals / STOP).exists():
        sender.send(marked=tick % _MARKED_EVERY == 0)
        due, tick = due + _TICK_S, tick + 1
        while (rest := due - time.time()) > 0:
            sender.look()
            if not sender.waiting:
                (signals / COUNTED).touch()
            time.sleep(min(rest, _LOOK_S))
    sender.send(marked=True)  # when it is counted, so are all before it
    while sender.waiting:
        sender.look()
        time.sleep(_LOOK_S)
    return sender.sent()


@dataclass(kw_only=True)
class _Sender:
    address: Address
    shape: Shape
    waiting: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._line = http.client.HTTPConnection(self.address.host, self.address.port, timeout=_LOST_S)
        self._rng = np.random.default_rng(13)
        self._rows: list[tuple[int, int, int]] = []
        self._seen: list[tuple[float, float]] = []
        self._marked = _FIRST_MARKED

    def send(self, *, marked: bool) -> None:
        """Send the events of a tick, one of them of a card of its own if it is to be waited for."""
        n = round(EVENTS_S * _TICK_S)
        cards = self.shape.cards(self._rng, n).tolist()
        if marked:
            self._marked += 1
            cards[-1] = self._marked
        cents = np.round(self._rng.gamma(2.0, 2_000.0, n)).astype(np.int64).tolist()
        now = time.time_ns() // 1_000
        rows = [(card, cent, now + i) for i, (card, cent) in enumerate(zip(cards, cents, strict=True))]
        first = len(self._rows)
        events = [
            {"card_id": card, "amount": cent / 100, "payment_id": f"s{first + i}", "paid_at": at}
            for i, (card, cent, at) in enumerate(rows)
        ]
        begun = time.time()
        self._ask(f"/events/{SOURCE}", {"events": events}, 202)
        self._rows += rows
        if marked:
            self.waiting[self._marked] = begun

    def look(self) -> None:
        """See which of the events that are waited for are counted."""
        if not self.waiting:
            return
        cards = list(self.waiting)
        reply = self._ask(
            "/predict", {"model": MODEL, "rows": [{"card_id": card} for card in cards], "features": True}, 200
        )
        now = time.time()
        for card, row in zip(cards, reply["predictions"], strict=True):
            if row["features"][f"{VIEW}__count_1h"] == 1:
                sent = self.waiting.pop(card)
                self._seen.append((sent, now - sent))
            elif now - self.waiting[card] > _LOST_S:
                raise ContestantError(f"an event of card {card} is not counted after {_LOST_S:g} s")

    def sent(self) -> Sent:
        """Return what was sent and seen."""
        self._line.close()
        card, cents, paid_at = np.array(self._rows, dtype=np.int64).T
        return Sent(payments=Payments(card=card, cents=cents, paid_at=paid_at), seen=self._seen)

    def _ask(self, path: str, body: object, expected: int) -> Any:  # noqa: ANN401 - JSON
        self._line.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        reply = self._line.getresponse()
        told = reply.read()
        if reply.status != expected:
            raise ContestantError(f"{path} answered {reply.status}: {told[:500]!r}")
        return json.loads(told)
