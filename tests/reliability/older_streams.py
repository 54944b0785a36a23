"""A stream whose Redis is restored to an older copy of its files, with a worker that reads it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from skewless.infra.ingest.streams.port import EventStream, RebalanceListener
from skewless.infra.ingest.streams.redis_link import RedisSender
from skewless.infra.ingest.streams.redis_stream import RedisStream
from skewless.infra.ingest.streams.worker import Worker
from skewless.infra.log.log_columns import REJECT
from skewless.infra.log.stream_losses import StreamLosses
from skewless.infra.reads.online.port import OnlineStore
from tests.reliability.losses import DURABLE, OlderCopy
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.streams import IDS, SOURCE, StreamWorld, drain

PARTITIONS = 2
BOTH = {str(index): 1 for index in range(PARTITIONS)}


@dataclass
class OlderStream:
    """Events by name, and what must have become of them.

    Args:
        node: has the streams alone, so that the states stay.
        keep: as for ``RedisStream``.
    """

    node: Node
    world: StreamWorld
    store: OnlineStore
    keep: int | None
    sent: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.sender = RedisSender(self.node.url, project="p", source="s", n_partitions=PARTITIONS)
        self.worker = self.start()
        self._copy = OlderCopy(self.node)
        self._n_copied = 0

    def start(self) -> Worker:
        return self.world.worker(self.store, self._open)

    def restart(self) -> None:
        """End the worker without a last commit, and start another one."""
        self.worker._uncommitted.clear()
        self.worker.close()
        self.worker = self.start()

    def send(self, n: int) -> None:
        for key, message in self._make(n):
            self.sender.send([message], [str(key)])

    def send_behind(self, n: int) -> None:
        """Send events as a Redis whose clock is behind: each has the milliseconds of the last id before.

        Without event ids, an id that a lost entry had is taken for that entry; so none has such an id.
        """
        with self.node.client() as client:
            for key, message in self._make(n):
                step = 1 if self.world.source.id_column else 1_000 * len(self.sent)
                stream = f"sk:p:events:{{s:{crc32(str(key).encode()) % PARTITIONS}}}"
                info: Any = client.xinfo_stream(stream)
                ms, _, seq = info["last-generated-id"].decode().partition("-")
                client.xadd(stream, {"e": message}, id=f"{ms}-{int(seq) + step}")

    def read(self) -> None:
        drain(self.worker)

    def copy(self) -> None:
        self._copy.take()
        self._n_copied = len(self.sent)

    def restore(self) -> None:
        """Lose what was sent since the copy, and is neither in the log nor with the worker."""
        self.lost |= set(self.sent[self._n_copied :]) - self.logged().keys()
        self._copy.restore()

    def logged(self) -> Counter[str]:
        """Return how often each event was accepted."""
        rows = [row for rows in self.world.logged().values() for row in rows]
        assert all(row[REJECT] is None for row in rows)
        return Counter(row["event"] for row in rows)

    def losses(self) -> Counter[str]:
        """Return the number of recorded losses of each partition."""
        return Counter(loss.partition for loss in StreamLosses(self.world.state.database).read_recent(0))

    def check(self) -> None:
        """Assert that each event that was not lost is in the log once, and that the states have it."""
        self.read()
        kept, logged = set(self.sent) - self.lost, self.logged()
        assert kept == logged.keys()
        assert logged.total() == len(logged), "an event was accepted twice"
        self.world.check()

    def _make(self, n: int) -> Iterator[tuple[int, bytes]]:
        for number in range(len(self.sent), len(self.sent) + n):
            body = {"event": f"e{number}", "id": number % IDS, "ts": self.world.clock.now_us(), "x": number / 8}
            self.sent.append(f"e{number}")
            yield number % IDS, json.dumps(body).encode()

    def _open(self, owner: RebalanceListener) -> EventStream:
        return RedisStream(
            self.node.url,
            database=self.world.state.database,
            project="p",
            source="s",
            n_partitions=PARTITIONS,
            owner=owner,
            keep=self.keep,
            lease_s=2.0,
            timeout_s=1.0,
        )


@contextmanager
def older_stream(
    folder: Path,
    url: str,
    id_column: str | None,
    keep: int | None = 100_000,
    name: Literal["valkey", "redis"] = "valkey",
) -> Iterator[OlderStream]:
    """Make a stream whose events have ids, or not; ``url`` is of the states."""
    world = StreamWorld(root=folder / "p", url=url, source=replace(SOURCE, id_column=id_column))
    world.ensure()
    exact = {"stream-node-max-entries": "1"}  # trims each entry that may go
    with running(Node(program(name), folder / "stream", {**DURABLE, **exact})) as node, world.store() as store:
        stream = OlderStream(node, world, store, keep)
        try:
            yield stream
        finally:
            stream.worker.close()
            stream.sender.close()
