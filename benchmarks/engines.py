"""Reads of windows by tasks on one and two worker processes, against one read in this process."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from benchmarks.digest import digest_columns
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.window_events import Events, plan_of, view
from skewless.contract.plan import FeaturePlan
from skewless.contract.settings import Settings
from skewless.infra.engines.engine import Engine
from skewless.infra.engines.processes import ProcessExecutor
from skewless.infra.engines.task import TaskResult
from skewless.infra.engines.view_reads import EngineViews
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.engine import connect
from skewless.infra.offline.views import OfflineViews
from skewless.infra.storage.project_state import ProjectState

_ALONE, _ONE, _TWO = "alone", "one worker", "two workers"
_MEMORY = "2GB"


@dataclass(frozen=True, kw_only=True)
class _Entrant:
    views: OfflineViews

    @property
    def results(self) -> Sequence[TaskResult]:
        return self.views.results if isinstance(self.views, EngineViews) else ()


def run() -> list[Result]:
    """Compute the windows of 1 M rows from 10 M events; the three have the same bits, or the run fails."""
    events = Events(n=scaled(10_000_000), n_keys=scaled(100_000, least=50))
    plan = plan_of([view()], ["key"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "state").mkdir()
        events.write(folder / "state")
        asked = events.asked(events.n // 10)
        entities = pa.table({"key": asked["key"], TIME: asked["t"]})
        with _entrants(folder) as entrants:
            reads = {name: _digest(entrant.views, plan, entities) for name, entrant in entrants.items()}
            if len(set(reads.values())) != 1:
                raise AssertionError(f"results differ: {reads}")
            seconds: dict[str, list[float]] = {name: [] for name in entrants}
            for _ in range(rounds(3)):
                for each, entrant in entrants.items():
                    seconds[each].append(_seconds(partial(entrant.views.read, plan, entities, "knowledge")))
            what = f"engines: {entities.num_rows:,} rows x {events.n:,} events, 12 windows, "
            return [*_times(what, seconds), *_shares(what, entrants[_TWO].results)]


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

        alone = OfflineViews(state, stack.enter_context(connect(folder / "alone", memory_limit=_MEMORY)))
        yield {_ALONE: _Entrant(views=alone), _ONE: _Entrant(views=views(1, 1)), _TWO: _Entrant(views=views(2, 1))}


def _times(what: str, seconds: Mapping[str, Sequence[float]]) -> list[Result]:
    median = {name: statistics.median(each) for name, each in seconds.items()}
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


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
