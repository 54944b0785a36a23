"""A stream worker under the eyes of ``kills``: steps, compaction, a backfill and its clean-up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import skewless.contract.windows.codec
import skewless.infra.ingest.streams.worker
import skewless.infra.reads.online.servers
from skewless.contract.clock import ManualClock
from skewless.infra.ingest.streams.port import EventStream, Messages, Partition, RebalanceListener
from skewless.infra.ingest.streams.worker import Worker
from skewless.infra.log.compaction import compact
from skewless.infra.log.generations import Generations
from skewless.infra.reads.online.servers import SingleServer
from tests.reliability.kills import ROOT, Steps
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.streams import StreamWorld, drain

PARTITIONS = 2
_BATCH = 9  # messages: so that a small run has several steps of each kind
_SCRIPTS = {"tile_append": "append", "tile_swap": "swap", "advance": "marker", "delete_rows": "delete"}


class FileStream:
    """See ``EventStream``: the lines of a file for each partition, all of one worker."""

    def __init__(self, folder: Path, owner: RebalanceListener) -> None:
        self._folder = folder
        self._owner = owner
        self._next: dict[Partition, int] = {}
        self._full: set[Partition] = set()

    @property
    def trouble(self) -> str | None:
        return None

    def poll(self, limit: int, timeout_s: float) -> list[Messages]:
        assert timeout_s >= 0
        for i in range(PARTITIONS):
            partition = Partition(name=str(i), epoch="f")
            if partition not in self._next:
                self._next[partition] = self._owner.on_assigned(partition) or 0
        each = -(-limit // PARTITIONS)
        self._full = set()
        return [found for partition in self._next if (found := self._read(partition, each)).payloads]

    def commit(self, positions: Mapping[Partition, int]) -> None:
        for partition, position in positions.items():
            (self._folder / f"{partition.name}.committed").write_text(str(position))

    def lag(self) -> int | None:
        return sum(len(self._lines(partition)) - at for partition, at in self._next.items())

    def find_drained(self) -> Mapping[Partition, float]:
        return dict.fromkeys(self._next.keys() - self._full, 0.0)

    def partition_names(self) -> Collection[str] | None:
        return [str(i) for i in range(PARTITIONS)]

    def close(self) -> None:
        for partition in list(self._next):
            self._owner.on_revoked(partition)
            del self._next[partition]

    def _read(self, partition: Partition, limit: int) -> Messages:
        start = self._next[partition]
        lines = self._lines(partition)[start : start + limit]
        self._next[partition] = start + len(lines)
        if len(lines) == limit:
            self._full.add(partition)
        positions = range(start, start + len(lines))
        return Messages(partition=partition, positions=positions, payloads=[bytes.fromhex(line) for line in lines])

    def _lines(self, partition: Partition) -> list[str]:
        path = self._folder / partition.name
        return path.read_text().splitlines() if path.exists() else []


def send(root: Path, messages: Sequence[tuple[int, bytes]]) -> None:
    """Put messages into the stream below a project's root."""
    folder = root / "stream"
    folder.mkdir(parents=True, exist_ok=True)
    for key, message in messages:
        with (folder / str(key % PARTITIONS)).open("a") as file:
            file.write(message.hex() + "\n")


def open_stream(root: Path) -> Callable[[RebalanceListener], EventStream]:
    return lambda owner: FileStream(root / "stream", owner)


def hasten() -> None:
    """Make batches small and states long soon, in this process."""
    skewless.infra.ingest.streams.worker._LINGER_S = 0.0
    skewless.contract.windows.codec.ROLL_RECORDS = 6
    skewless.infra.reads.online.servers.slices.__defaults__ = (3, 0)


def work(world: StreamWorld) -> None:
    """Step, compact, rebuild the states, clean up: every kind of write, while events arrive."""
    with world.store() as store:
        worker = world.worker(store, open_stream(world.root), max_rows=_BATCH)
        drain(worker)
        for partition_worker in worker._partition_workers.values():
            compact(partition_worker.log, keep=2)
        _build(world, worker)
        worker.close()


def _build(world: StreamWorld, worker: Worker) -> None:
    with world.store() as store, world.backfiller(store) as backfiller:
        for view in world.views:
            backfiller.build(view)
        worker.step()
        world.housekeeper(store).retire(world.views[0])


def act(steps: Steps, order: dict[str, Any]) -> None:
    """Do the work of ``work``."""
    hasten()
    clock, addresses = ManualClock(order["now_us"]), ProjectAddresses(**order["addresses"])
    world = StreamWorld(root=Path(order["root"]), url=order["url"], clock=clock, addresses=addresses)
    steps.watch(world.root)
    steps.wrap(Generations, "retire", lambda *_: "retire")
    steps.wrap(FileStream, "commit", lambda *_: "commit")
    watch_states(steps)
    work(world)


def watch_states(steps: Steps) -> None:
    """Count every write of states and markers to the online store."""
    _halve(SingleServer)
    steps.wrap(SingleServer, "_half", lambda _, script, *__: _script(script))


def order_of(world: StreamWorld) -> dict[str, Any]:
    """Return the order to work on a world."""
    addresses = asdict(world.addresses)
    return {"root": str(world.root), "url": world.url, "now_us": world.clock.now_us(), "addresses": addresses}


def _halve(server: Any) -> None:  # noqa: ANN401 - a class
    """Let each call of a script be two, so that a kill may leave half of it."""
    server._half = server.call

    def call(self: Any, script: Any, keys: Any, rows: Any, last: Any = None) -> list[Any]:  # noqa: ANN401
        middle = len(keys) // 2
        answers = self._half(script, keys[:middle], rows[:middle], last) if middle else []
        for places, reply in self._half(script, keys[middle:], rows[middle:], last):
            answers.append(([place + middle for place in places], reply))
        return answers

    server.call = call


def _script(script: Any) -> str:  # noqa: ANN401 - of redis-py
    folder = ROOT / "infra" / "reads" / "online"
    return next(name for file, name in _SCRIPTS.items() if (folder / f"{file}.lua").read_text() == script.script)
