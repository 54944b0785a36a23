"""Reads of windows by tasks on one and two worker processes, against one read in this process.

On a machine that is busy with other work, only the seconds of CPU can be compared, and the time of idle cores follows
from them: the driver, and the worker that has most to do.
"""

from __future__ import annotations

import heapq
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from benchmarks.digest import digest_columns
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.window_events import Events, plan_of, view
from skewless.contract.plan import FeaturePlan
from skewless.contract.settings import Settings
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.engines.engine import Engine
from skewless.infra.reads.engines.processes import ProcessExecutor
from skewless.infra.reads.engines.task import TaskResult
from skewless.infra.reads.engines.view_reads import EngineViews
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.views import OfflineViews

_ALONE, _THREAD, _ONE, _TWO = "alone", "one thread", "one worker", "two workers"
_MEMORY = "2GB"


@dataclass(frozen=True, kw_only=True)
class _Lap:
    """One read: its seconds, and the seconds of CPU of this process without tasks, and of each task."""

    seconds: float
    driver_s: float
    tasks_s: Sequence[float]

    @property
    def cpu_s(self) -> float:
        return self.driver_s + sum(self.tasks_s)

    def idle_s(self, workers: int) -> float:
        """Return the seconds on idle cores: workers take the tasks in their order."""
        busy = [0.0] * workers
        for task_s in self.tasks_s:
            heapq.heapreplace(busy, busy[0] + task_s)
        return self.driver_s + max(busy)


@dataclass(frozen=True, kw_only=True)
class _Entrant:
    views: OfflineViews
    is_here: bool = False

    @property
    def results(self) -> Sequence[TaskResult]:
        return self.views.results if isinstance(self.views, EngineViews) else ()

    def measure(self, work: Callable[[OfflineViews], object]) -> _Lap:
        began, cpu = time.perf_counter(), time.process_time()
        work(self.views)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        tasks_s = [each.cpu_s for each in self.results]
        return _Lap(seconds=seconds, driver_s=cpu_s - sum(tasks_s) * self.is_here, tasks_s=tasks_s)


def run() -> list[Result]:
    """Compute the windows of 1 M rows from 10 M events; the three have the same bits, or the run fails."""
    events = Events(n=scaled(10_000_000), n_keys=scaled(100_000, least=50))
    plan = plan_of([view()], ["key"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "state").mkdir()
        events.write(folder / "state")
        events.sort_log(folder / "state", view())
        asked = events.asked(events.n // 10)
        entities = pa.table({"key": asked["key"], TIME: asked["t"]})
        with _entrants(folder) as entrants:
            reads = {name: _digest(entrant.views, plan, entities) for name, entrant in entrants.items()}
            if len(set(reads.values())) != 1:
                raise AssertionError(f"results differ: {reads}")
            laps: dict[str, list[_Lap]] = {name: [] for name in entrants}
            for _ in range(rounds(3)):
                for each, entrant in entrants.items():
                    laps[each].append(entrant.measure(lambda views: views.read(plan, entities, "knowledge")))
            what = f"engines: {entities.num_rows:,} rows x {events.n:,} events, 12 windows, "
            return [*_times(what, laps), *_cpu(what, laps), *_shares(what, entrants[_TWO].results)]


@contextmanager
def _entrants(folder: Path) -> Iterator[Mapping[str, _Entrant]]:
    state = ProjectState(folder / "state")
    with ExitStack() as stack:

        def views(workers: int, threads: int) -> EngineViews:
            connection = stack.enter_context(connect(folder / f"{workers}", memory_limit=_MEMORY, threads=threads))
            executor = stack.enter_context(closing(ProcessExecutor(workers)))
            own = Settings(state="state", engine_rows=0, memory_limit=_MEMORY, threads=threads)
            return EngineViews(
                state,
                connection,
                Engine(open=lambda: executor, repo=folder, state=state, settings=own),
            )

        def alone(threads: int) -> OfflineViews:
            spill = folder / f"alone-{threads}"
            return OfflineViews(state, stack.enter_context(connect(spill, memory_limit=_MEMORY, threads=threads)))

        yield {
            _ALONE: _Entrant(views=alone(0)),
            _THREAD: _Entrant(views=alone(1)),
            _ONE: _Entrant(views=views(1, 1), is_here=True),
            _TWO: _Entrant(views=views(2, 1)),
        }


def _times(what: str, laps: Mapping[str, Sequence[_Lap]]) -> list[Result]:
    median = {name: statistics.median(lap.seconds for lap in each) for name, each in laps.items()}
    return [
        Result(
            name=f"{what}two workers",
            value=median[_TWO],
            unit="s",
            against=f"{text} ({median[peer]:,.2f} s)",
            ratio=median[_TWO] / median[peer],
            target=target,
        )
        for peer, text, target in ((_ONE, "one worker", 1 / 1.7), (_ALONE, "one process with all cores", 1.3))
    ]


def _cpu(what: str, laps: Mapping[str, Sequence[_Lap]]) -> list[Result]:
    """Return the seconds of CPU: they depend less on other work of the machine."""
    # The least of the laps: other work only adds to it.
    cpu = {name: min(lap.cpu_s for lap in each) for name, each in laps.items()}
    one, two = (min(lap.idle_s(workers) for lap in laps[name]) for name, workers in ((_ONE, 1), (_TWO, 2)))
    return [
        Result(
            name=f"{what}CPU of {name}",
            value=cpu[name],
            unit="s of CPU",
            against=f"one process with one thread ({cpu[_THREAD]:,.2f} s)",
            ratio=cpu[name] / cpu[_THREAD],
            target=1.3,
        )
        for name in (_ONE, _TWO)
    ] + [
        Result(
            name=f"{what}two workers on two idle cores, from the CPU",
            value=two,
            unit="s of CPU",
            against=f"one worker ({one:,.2f} s)",
            ratio=two / one,
            target=1 / 1.7,
        )
    ]


def _shares(what: str, results: Sequence[TaskResult]) -> list[Result]:
    parts = {
        "reading": sum(each.read_s for each in results),
        "computing": sum(each.compute_s for each in results),
        "writing": sum(each.write_s for each in results),
    }
    total = sum(parts.values())
    rows = [
        Result(name=f"{what}{name}", value=100 * part / total, unit="%", against="all seconds of the tasks", ratio=None)
        for name, part in parts.items()
    ]
    peak = max(each.peak_bytes for each in results) / 1e6
    return [*rows, Result(name=f"{what}memory of a worker", value=peak, unit="MB", against="-", ratio=None)]


def _digest(views: OfflineViews, plan: FeaturePlan, entities: pa.Table) -> str:
    (read,) = views.read(plan, entities, "knowledge").values()
    return digest_columns(dict(read.values))
