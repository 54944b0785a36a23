"""A stream worker in a process of its own that kills itself before or after a chosen durable step.

Run as a program it reads one order a line and forks for each, so that a kill costs no start: ``ROOT URL NOW POINT
SIDE``, separated by tabs, where ``POINT`` is ``NAME#NUMBER``, or empty to list the points.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from skewless.contract.clock import ManualClock
from skewless.infra.log.compaction import compact
from skewless.infra.streams.port import EventStream, Messages, Partition, RebalanceListener
from skewless.infra.streams.worker import Worker
from tests.reliability.kills import ROOT, Side, Steps
from tests.worlds.streams import StreamWorld, drain

PARTITIONS = 2
_BATCH = 9  # messages: so that a small run has several steps of each kind
_SCRIPTS = {"tile_append": "append", "tile_swap": "swap", "advance": "marker"}


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
    import skewless.contract.windows.codec  # noqa: PLC0415
    import skewless.infra.online.servers  # noqa: PLC0415
    import skewless.infra.streams.worker  # noqa: PLC0415

    skewless.infra.streams.worker._LINGER_S = 0.0
    skewless.contract.windows.codec._ROLL_RECORDS = 6
    skewless.infra.online.servers.slices.__defaults__ = (3, 0)


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


def _watched(point: str, side: Side) -> Steps:
    from skewless.infra.log.generations import Generations  # noqa: PLC0415
    from skewless.infra.online.servers import SingleServer  # noqa: PLC0415

    steps = Steps(point, side)
    steps.wrap(os, "fsync", _synced)
    steps.wrap(os, "link", lambda *_: "link-merged")
    steps.wrap(Path, "unlink", lambda path, **_: f"unlink-{_kind(path)}")
    steps.wrap_commits()
    steps.wrap(Generations, "retire", lambda *_: "retire")
    steps.wrap(FileStream, "commit", lambda *_: "commit")
    _halve(SingleServer)
    steps.wrap(SingleServer, "_half", lambda _, script, *__: _script(script))
    return steps


def _halve(server: Any) -> None:  # noqa: ANN401 - a class
    """Let each call of a script be two, so that a kill may leave half of it."""
    server._half = server.call

    def call(self: Any, script: Any, keys: Any, rows: Any, last: Any = None) -> list[Any]:  # noqa: ANN401
        middle = len(keys) // 2
        answers = self._half(script, keys[:middle], rows[:middle], last) if middle else []
        for answer in self._half(script, keys[middle:], rows[middle:], last):
            places = [place + middle for place in answer.places]
            answers.append(type(answer)(places=places, reply=answer.reply))
        return answers

    server.call = call


def _script(script: Any) -> str:  # noqa: ANN401 - of redis-py
    folder = ROOT / "infra" / "online"
    return next(name for file, name in _SCRIPTS.items() if (folder / f"{file}.lua").read_text() == script.script)


def _synced(descriptor: int) -> str:
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    return "sync-folder" if path.is_dir() else f"sync-{_kind(path)}"


def _kind(path: Path) -> str:
    return "object" if path.suffix == ".parquet" else "draft"


class WorkerVictims:
    """Runs workers in processes that are killed at chosen places."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def points(self, root: Path, url: str, now_us: int) -> list[str]:
        """Return the points that a whole run comes by, in order."""
        status, *passed = self._order(root, url, now_us, "", "before")
        assert status == "0", passed
        return passed

    def killed(self, root: Path, url: str, now_us: int, point: str, side: Side) -> bool:
        """Run until a point, and say whether the run died there rather than end without coming by."""
        status, *_ = self._order(root, url, now_us, point, side)
        assert status in {"0", "-9"}, f"{side} {point}: {status}"
        return status == "-9"

    def _order(self, root: Path, url: str, now_us: int, point: str, side: Side) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\t".join([str(root), url, str(now_us), point, side]) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().split()


@contextmanager
def victims() -> Iterator[WorkerVictims]:
    """Run the program of this module for the length of a block."""
    command = [sys.executable, "-m", "tests.reliability.stream_kills"]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield WorkerVictims(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _forked(order: Sequence[str]) -> str:
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        with os.fdopen(into, "w") as report:
            _victim(order, report)
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as report:
        passed = report.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return f"{status} {passed}"


def _victim(order: Sequence[str], report: IO[str]) -> None:
    root, url, now_us, point, side = order
    hasten()
    world = StreamWorld(root=Path(root), url=url, clock=ManualClock(int(now_us)))
    steps = _watched(point, "after" if side == "after" else "before")
    work(world)
    if not point:
        report.write(" ".join(steps.passed))


def main() -> None:
    """Follow orders until there are no more."""
    for line in sys.stdin:
        sys.stdout.write(_forked(line.rstrip("\n").split("\t")) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
