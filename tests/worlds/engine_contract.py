"""What each engine must do with tasks: results, errors, killed workers, cancellation, a killed driver."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import redis

from skewless.contract.clock import ManualClock
from skewless.contract.errors import SkewlessError, SourceError
from skewless.infra.reads.engines.port import Executor
from skewless.infra.reads.engines.results import FOLDER
from skewless.infra.reads.engines.task import Task, TaskResult
from skewless.infra.reads.offline.join import Order
from skewless.infra.reads.offline.views import OfflineViews
from skewless.project import Project
from tests.worlds.engines import EngineWorld, bits_of, leftovers, open_engine_world, plan_of
from tests.worlds.killer import killing_workers
from tests.worlds.tasks import make_tasks
from tests.worlds.waiting import is_alive
from tests.worlds.windowed import NOW, write_repo

ROOT = Path(__file__).parents[2]
_DRIVER = """
from skewless.contract.settings import Settings
from skewless.infra.reads.engines.port import open_executor
from tests.worlds.tasks import make_tasks
executor = open_executor({name!r}, Settings(engine_workers=2))
for result in executor.run(make_tasks("count", 4, seconds=0.3)): print(result.values["pid"], flush=True)
list(executor.run(make_tasks("count", 2, seconds=600)))
"""


def check_results(executor: Executor) -> None:
    """Each task has its result, from another process, and a result comes before the last task has finished."""
    results = list(executor.run(make_tasks("count", 9)))
    assert sorted(result.rows for result in results) == list(range(9))
    assert os.getpid() not in {result.values["pid"] for result in results}
    assert all(result.peak_bytes > 1_000_000 for result in results)
    assert list(executor.run([])) == []
    running = executor.run([*make_tasks("count", 1), *make_tasks("count", 3, seconds=2)])
    started = time.monotonic()
    next(running)
    first_s = time.monotonic() - started
    assert len(list(running)) == 3
    assert time.monotonic() - started - first_s > 1


def check_errors(executor: Executor) -> None:
    """An error of a task keeps its class and names the task; so does a fault of the program."""
    tasks = make_tasks("reject", 3)
    with pytest.raises(SourceError) as caught:
        list(executor.run(tasks))
    assert caught.value.sentence() == f"file 'x': is corrupt (task {tasks[1].name}) (got 7). Fix: restore it"
    with pytest.raises(SkewlessError, match="ZeroDivisionError: of a test") as fault:
        list(executor.run(make_tasks("crash", 1)))
    assert "00000-00001" in str(fault.value)


def check_killed_workers(executor: Executor, folder: Path) -> None:
    """The task of a killed worker is tried again, but not without end."""
    results = list(executor.run(make_tasks("die_once", 3, folder=str(folder))))
    assert sorted(result.rows for result in results) == [0, 1, 2]
    (task,) = make_tasks("die", 1)
    with pytest.raises(SkewlessError, match="has lost 5 workers") as caught:
        list(executor.run([task]))
    assert task.name in str(caught.value)
    assert len(list(executor.run(make_tasks("count", 2)))) == 2


def check_cancellation(executor: Executor, folder: Path) -> None:
    """No worker runs a task after its iterator was closed."""
    results = executor.run([*make_tasks("count", 1), *make_tasks("linger", 2, folder=str(folder))])
    next(results)
    while not list(folder.iterdir()):
        time.sleep(0.05)
    results.close()
    assert [path.name for path in folder.iterdir() if is_alive(int(path.name))] == []
    assert len(list(executor.run(make_tasks("count", 2)))) == 2


def check_killed_driver(name: str) -> None:
    """Nothing that a killed driver has started stays."""
    mark = f"SKEWLESS_MARK={uuid.uuid4().hex}"
    environment = {**os.environ, **dict([mark.split("=")])}
    command = [sys.executable, "-c", _DRIVER.format(name=name)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert all(driver.stdout.readline() for _ in range(4))
        time.sleep(1)
        assert len(_marked(mark)) > 2
        driver.kill()
    deadline = time.monotonic() + 60
    while left := _marked(mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def _marked(mark: str) -> list[str]:
    """Return the commands of the processes whose environment has a variable."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes().split(b"\0") and is_alive(int(process.name)):
                found.append((process / "cmdline").read_text(encoding="utf-8").replace("\0", " ")[:200])
    return found


@dataclass(kw_only=True)
class DisturbedExecutor:
    """An executor whose cluster loses a part when the first task has finished.

    Args:
        lose: takes the part away.
    """

    inner: Executor
    lose: Callable[[], None]
    name: str = "disturbed"
    workers: int = 0

    def __post_init__(self) -> None:
        self.workers = self.inner.workers

    def run(self, tasks: Sequence[Task]) -> Generator[TaskResult]:
        for number, result in enumerate(self.inner.run(tasks)):
            if not number:
                self.lose()
            yield result

    def close(self) -> None:
        self.inner.close()


def check_losses(executor: Executor, lose: Callable[[], None], folder: Path) -> None:
    """Reads of views have the bits of one machine while a cluster is whole and while it loses a part; nothing stays."""
    with open_engine_world(folder) as world:
        _compare(world, executor, (1, 64, 4_096))
        _compare(world, DisturbedExecutor(inner=executor, lose=lose), (64,), orders=("event_time",))


def check_digests(executor: Executor, folder: Path, events: int) -> None:
    """Reads of views have the bits of one process, whatever the buckets and the time mode; nothing stays."""
    with open_engine_world(folder, events=events) as world:
        _compare(world, executor, (1, 7, 64, 4_096))


def check_killed_reads(executor: Executor, folder: Path, kills: int) -> None:
    """Reads of views have the bits of one process while workers are killed at random moments; nothing stays."""
    with open_engine_world(folder) as world, killing_workers(kills, executor.name) as is_killing:
        while is_killing():
            _compare(world, executor, (64,))


def check_killed_writes(executor: Executor, folder: Path, kills: int) -> None:
    """The online store has the rows and states of the log after workers were killed while they wrote them."""
    with open_windowed_project(folder) as project, killing_workers(kills, executor.name) as is_killing:
        project.__dict__["executor"] = executor
        while is_killing():
            with redis.Redis.from_url(project.redis_url) as client:
                client.flushall()
            assert [report.applied for report in project.materialize(check=False)] == [3]
            assert [built.states for built in project.backfill()] == [3]
        report = project.parity()
        assert report.ok, report.lines()
        assert all(view.unavailable == 0 for view in report.views)
        assert list(project.state.storage.list_objects(FOLDER)) == []


@contextmanager
def open_windowed_project(folder: Path) -> Iterator[Project]:
    """A project whose work runs on two processes; it is applied, and its events are imported."""
    with Project(write_repo(folder / "air"), engine_rows=0, engine_workers=2) as project:
        project.__dict__["clock"] = ManualClock(NOW)  # states of two times differ
        project.apply()
        project.import_events()
        yield project
        project.private.stop()


def _compare(
    world: EngineWorld,
    executor: Executor,
    buckets: Sequence[int],
    orders: Sequence[Order] = ("knowledge", "event_time"),
) -> None:
    for order in orders:
        entities: pa.Table = world.entities(2_000)
        expected = bits_of(OfflineViews(world.state, world.shop.connection).read(plan_of(1), entities, order))
        for number in buckets:
            views = world.views(executor)
            assert bits_of(views.read(plan_of(number), entities, order)) == expected, (order, number)
            assert sum(result.rows for result in views.results) == 4 * 2_000
    assert leftovers(world) == []
