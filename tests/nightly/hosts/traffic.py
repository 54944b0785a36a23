"""The events and predictions that clients send to a project on several hosts, and the values that they must get."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from skewless.contract.windows.hops import SECOND
from tests.worlds.waiting import PATIENCE_S
from tests.worlds.windowed import CARRIERS, DAY, HOUR, MINUTE, NOW

_TIMEOUT_S = 12.0


@dataclass(frozen=True)
class SentEvent:
    """An event that a server has accepted."""

    id: str
    carrier: str
    delay: float
    at_us: int

    def as_dict(self) -> dict[str, Any]:
        """Return the event as clients send it."""
        return {"landing": self.id, "carrier": self.carrier, "arr_delay": self.delay, "landed_at": self.at_us}


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A prediction request; its times are of the monotonic clock. Status 0: no reply."""

    target: str
    begin_s: float
    end_s: float
    status: int
    body: dict[str, Any]

    @property
    def is_busy(self) -> bool:
        """Whether the server rejected it because of overload."""
        error = self.body.get("error")
        return isinstance(error, dict) and error.get("kind") == "busy"


def post(url: str, path: str, body: object, timeout_s: float = _TIMEOUT_S) -> tuple[int, dict[str, Any]]:
    """Return status and JSON of a reply; status 0: there was none."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        connection.request("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    except (OSError, HTTPException, ValueError) as error:
        return 0, {"error": repr(error)}
    finally:
        connection.close()


def predict(url: str, timeout_s: float = _TIMEOUT_S) -> tuple[int, dict[str, Any]]:
    """Ask for one prediction of each carrier, with features."""
    rows = [{"carrier": carrier} for carrier in CARRIERS]
    return post(url, "/predict", {"model": "late", "rows": rows, "features": True}, timeout_s)


@dataclass
class ClientTraffic:
    """Clients that send events and ask for predictions for the length of a block.

    Args:
        events_to: URL that accepts events.
        targets: URLs that predict, by name.
        now_us: clock of the producers.
        pause_s: of a client between two requests.
    """

    events_to: str
    targets: dict[str, str]
    now_us: Callable[[], int]
    seed: int
    pause_s: float
    accepted: list[SentEvent] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    repeats: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send for the length of a block; at its end each event has been accepted."""
        threads = [threading.Thread(target=self._produce)]
        threads += [threading.Thread(target=self._ask, args=item) for item in self.targets.items()]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def failures(self, target: str) -> list[Exchange]:
        """Return the requests to a target that were not answered with 200."""
        return [item for item in self.exchanges if item.target == target and item.status != 200]

    def prediction_ids(self) -> list[str]:
        """Return the ids of all predictions that clients have received."""
        return [row["id"] for item in self.exchanges if item.status == 200 for row in item.body["predictions"]]

    def _produce(self) -> None:
        chance, number = random.Random(self.seed), 0
        while not self._stop.wait(self.pause_s):
            batch = []
            for _ in range(chance.randrange(1, 6)):
                number += 1
                age = chance.choice([0, chance.randrange(9 * SECOND), chance.randrange(40 * MINUTE)])
                delay = chance.randrange(-100, 2_000) / 10
                batch.append(SentEvent(f"e{number}", chance.choice(CARRIERS), delay, self.now_us() - age))
            self._send(batch)
            if chance.random() < 0.1:
                self._send(chance.sample(self.accepted[-50:], min(5, len(self.accepted))), again=True)

    def _send(self, batch: Sequence[SentEvent], *, again: bool = False) -> None:
        """Send events as a client does that was not answered: with the same ids until it is."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._sent(batch):
            self.repeats += 1
            time.sleep(0.2)
            assert time.monotonic() < deadline, "no server accepts events"
        if not again:
            self.accepted += batch

    def _sent(self, batch: Sequence[SentEvent]) -> bool:
        status, _ = post(self.events_to, "/events/landings", {"events": [event.as_dict() for event in batch]})
        return status in {200, 202}

    def _ask(self, target: str, url: str) -> None:
        while not self._stop.wait(self.pause_s):
            begin = time.monotonic()
            status, body = predict(url)
            end = time.monotonic()
            self.exchanges.append(Exchange(target=target, begin_s=begin, end_s=end, status=status, body=body))


def expected_features(accepted: Sequence[SentEvent], t_us: int) -> dict[str, tuple[int, float | None]]:
    """Return number and mean delay of each carrier's landings of the last hour, by brute force."""
    history = [(CARRIERS[i % 3], 0.5 * (i % 41) - 5, NOW - DAY + i * 144 * SECOND) for i in range(600)]
    landed = [*history, *((event.carrier, event.delay, event.at_us) for event in accepted)]
    end = t_us // 1_000 * 1_000
    since = (end - HOUR) // (5 * MINUTE) * (5 * MINUTE)
    features: dict[str, tuple[int, float | None]] = {}
    for carrier in CARRIERS:
        delays = [delay for name, delay, at in landed if name == carrier and since <= at < end]
        mean = sum(round(delay * 10) for delay in delays) / (10 * len(delays)) if delays else None
        features[carrier] = len(delays), mean
    return features
