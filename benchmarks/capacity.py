"""Costs on which ``skewless capacity`` rests: CPU of reads of windows by tasks, and the bytes of a key in Redis."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import redis

from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.server import empty, own_server, used_bytes
from benchmarks.window_events import Events, plan_of, view
from skewless.contract.settings import Settings
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.engines.engine import Engine
from skewless.infra.reads.engines.task import Task, TaskResult, run_task
from skewless.infra.reads.engines.view_reads import EngineViews
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.engine import connect

_TASKS = 8
_MEMORY = "2GB"


class _InTurn:
    """An executor that runs all tasks in this process, and measures their CPU seconds apart from the driver's."""

    name = "in turn"

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.cpu_s = 0.0

    def run(self, tasks: Sequence[Task]) -> Generator[TaskResult]:
        for task in tasks:
            began = time.process_time()
            result = run_task(task)
            self.cpu_s += time.process_time() - began
            yield result

    def close(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """CPU seconds of one read."""

    tasks_s: float
    driver_s: float


def run() -> list[Result]:
    """Measure reads of windows, which differ in events, rows and tasks, and keys in Redis."""
    few, many = scaled(4_000_000), scaled(8_000_000)
    rows, features = scaled(400_000), len(view().aggregates)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = _Log(folder / "few", few), _Log(folder / "many", many)
        cases = {
            "base": (large, rows, 1),
            "tasks": (large, rows, _TASKS),
            "events": (small, rows, 1),
            "rows": (large, 2 * rows, 1),
        }
        laps = [{case: log.read(n, tasks) for case, (log, n, tasks) in cases.items()} for _ in range(rounds(3) + 1)][1:]
        cost = {
            case: _Cost(
                tasks_s=statistics.median(lap[case].tasks_s for lap in laps),
                driver_s=statistics.median(lap[case].driver_s for lap in laps),
            )
            for case in cases
        }
        log_bytes = large.bytes_per_event
    base, millions = cost["base"].tasks_s, many / 1e6
    scan = (cost["tasks"].tasks_s - base) / (_TASKS - 1) / millions
    events = (base - cost["events"].tasks_s) / ((many - few) / 1e6)
    values = rows * features / 1e6
    return [
        _result("log of events with 2 columns", log_bytes, "bytes/event"),
        _result("CPU for an event, on one core", events, "s per million"),
        _result("CPU for a GB of the log, on one core", events * 1e3 / log_bytes, "s per GB"),
        _result("CPU for an event, on each further core with its tasks", scan, "s per million"),
        _result("CPU of tasks for a value (row x feature)", (cost["rows"].tasks_s - base) / values, "s per million"),
        _result("CPU of the driver for a value", cost["base"].driver_s / values, "s per million"),
        _result("Redis, a key beyond its rounded name and value", _key_overhead(scaled(20_000)), "bytes"),
    ]


def _result(name: str, value: float, unit: str) -> Result:
    # In a trial at a small scale, a difference of two times may be noise below zero.
    return Result(name=f"capacity: {name}", value=max(value, 1e-9), unit=unit, against="-", ratio=None)


class _Log:
    """A log of made-up events, and reads of its 12 windows by tasks that run in turn, on one thread."""

    def __init__(self, folder: Path, n: int) -> None:
        self._folder, self._events = folder, Events(n=n, n_keys=scaled(100_000, least=50))
        (folder / "state").mkdir(parents=True)
        self._events.write(folder / "state")
        self._events.sort_log(folder / "state", view())
        self.bytes_per_event = sum(Path(file).stat().st_size for file in self._events.files(folder / "state")) / n

    def read(self, rows: int, tasks: int) -> _Cost:
        """Return the CPU of a read for so many rows."""
        asked = self._events.asked(rows)
        entities = pa.table({"key": asked["key"], TIME: asked["t"]})
        state, executor = ProjectState(self._folder / "state"), _InTurn(tasks)
        settings = Settings(state="state", engine_rows=0, memory_limit=_MEMORY, threads=1)
        with connect(self._folder / "spill", memory_limit=_MEMORY, threads=1) as connection:
            engine = Engine(open=lambda: executor, repo=self._folder, state=state, settings=settings)
            views = EngineViews(state, connection, engine)
            began = time.process_time()
            views.read(plan_of([view()], ["key"]), entities, "knowledge")
            total = time.process_time() - began
        return _Cost(tasks_s=executor.cpu_s, driver_s=total - executor.cpu_s)


def _key_overhead(n: int) -> float:
    """Return the bytes of a key in the system's Redis beyond its name and value: 48 and 320 as its allocator rounds."""
    with own_server() as url, redis.Redis.from_url(url) as client:
        empty(url)
        before, pipe = used_bytes(url), client.pipeline(transaction=False)
        for i in range(n):
            pipe.set(b"sk:bench:0123456789abcdef:{card|%08d}" % i, b"x" * 294)
        pipe.execute()
        return (used_bytes(url) - before) / n - 48 - 320
