"""A random mix of rubbish, of a seed, from several clients at once."""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.nightly.reliability import hostile
from tests.nightly.reliability.hostile import Drip
from tests.nightly.reliability.rubbish_kinds import KINDS, STATUS, RubbishKind, Site

SENDERS, PAUSE_S = 6, 0.1  # some thirty pieces of rubbish a second
DAWDLERS = 30  # connections that each sender leaves open
_BUSY_S = 0.5  # in which incomplete requests are given up


class Dawdlers:
    """Connections that are left open, silent or slow."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self.dropped = 0  # by the server
        self._site = site
        self._chance = chance
        self._open: deque[Drip] = deque()

    def add(self) -> None:
        """Open another, and hang up on the oldest beyond ``DAWDLERS``."""
        good = self._site.good()
        start, slow = self._chance.choice(
            [
                (b"", b""),
                (good[: self._chance.randrange(1, len(good))], b""),
                (good[:40], b"x" * 1_000),
                (self._site.predict(b" " * 1_000)[:-1_000], b" " * 900),
                (good.replace(b"content-length", b"expect: 100-continue\r\ncontent-length").partition(b"{")[0], b""),
            ]
        )
        self._open.append(Drip(self._site.target, 1, start, slow))
        if len(self._open) > DAWDLERS:
            self._open.popleft().close()

    def drip(self) -> None:
        """Send the next byte of each that the server has not dropped."""
        for drip in list(self._open):
            drip.drop()
            if not drip.open():
                self.dropped += 1
                self._open.remove(drip)
                drip.close()

    def close(self) -> None:
        """Hang up."""
        for drip in self._open:
            drip.close()


class Sender(threading.Thread):
    """One after another, random pieces of rubbish."""

    def __init__(self, site: Site, kinds: Mapping[str, RubbishKind], seed: int) -> None:
        super().__init__(daemon=True)
        self.counts: Counter[tuple[str, object]] = Counter()
        self.problems: list[str] = []
        self._site = site
        self._kinds = kinds
        self._chance = random.Random(seed)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Send until stopped."""
        dawdlers = Dawdlers(self._site, self._chance)
        acts: Mapping[str, Callable[[], None]] = {
            "dawdler": dawdlers.add,
            "reset": self._reset,
            "no reader": self._never_read,
            "no word": self._connect_only,
            "garbage for gRPC": self._garbage_for_grpc,
        }
        names = [*self._kinds, *acts]
        while not self._stopping.wait(self._chance.expovariate(1 / PAUSE_S)):
            name = self._chance.choice(names)
            try:
                if name in acts:
                    acts[name]()
                    self.counts[name, "sent"] += 1
                else:
                    self._tell(name, self._kinds[name])
                dawdlers.drip()
            except OSError as error:
                self.problems.append(f"{name}: {error!r}")
        dawdlers.close()
        self.counts["dawdler", "dropped"] += dawdlers.dropped

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()

    def _tell(self, name: str, kind: RubbishKind) -> None:
        sent: list[bytes] = []

        def parts() -> Iterator[bytes]:
            for part in kind.parts(self._site, self._chance):
                sent.append(part[:500])
                yield part

        try:
            said = hostile.told(kind.target(self._site), parts(), *([_BUSY_S] if kind.is_incomplete else []))
        except TimeoutError:
            if not kind.is_incomplete:
                self.problems.append(f"{name}: neither an answer nor an end to {sent[:3]}")
            self.counts[name, "given up"] += 1
            return
        if problem := kind.problem(said):
            self.problems.append(f"{name}: {problem} to {sent[:3]}: {said[:1_000]!r}")
        self.counts.update((name, int(status)) for status in STATUS.findall(said))
        if not said:
            self.counts[name, "closed"] += 1

    def _reset(self) -> None:
        good = self._site.good(features=True) * 3
        hostile.reset(self._site.target, good[: self._chance.choice([10, len(good) // 3, len(good)])])

    def _never_read(self) -> None:
        hostile.stuffed(self._site.target, self._site.good(features=True), 0.3)

    def _connect_only(self) -> None:
        for _ in range(self._chance.choice([1, 20])):
            socket.create_connection(self._site.target.address).close()

    def _garbage_for_grpc(self) -> None:
        text = self._chance.choice([b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
        with socket.create_connection(self._site.grpc) as connection, suppress(ConnectionError):
            connection.sendall(text + self._chance.randbytes(100))


@dataclass
class RubbishRun:
    """What was sent, and what came of it."""

    senders: list[Sender] = field(default_factory=list)

    @property
    def counts(self) -> Counter[tuple[str, object]]:
        """How often each kind came to each end."""
        return sum((sender.counts for sender in self.senders), Counter())

    @property
    def problems(self) -> list[str]:
        """What must not be."""
        return [problem for sender in self.senders for problem in sender.problems]

    def lines(self) -> Iterator[str]:
        """Yield a line for each kind."""
        counts = self.counts
        for name in sorted({name for name, _ in counts}):
            ends = {str(end): n for (kind, end), n in counts.items() if kind == name}
            yield f"{name}: " + ", ".join(f"{n} {end}" for end, n in sorted(ends.items()))


@contextmanager
def rubbish(site: Site, seed: int) -> Iterator[RubbishRun]:
    """Throw rubbish while the block runs."""
    kinds = {name: kind for name, kind in KINDS.items() if site.target.tls is not None or name != "no TLS"}
    thrown = RubbishRun([Sender(site, kinds, seed * SENDERS + i) for i in range(SENDERS)])
    for sender in thrown.senders:
        sender.start()
    try:
        yield thrown
    finally:
        for sender in thrown.senders:
            sender.stop()
        for sender in thrown.senders:
            sender.join()
