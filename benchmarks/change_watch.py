"""When a change has reached those who work on a project: seen from outside, in files, in Redis, in replies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from benchmarks.change_project import MODEL
from benchmarks.contestant import ContestantError
from benchmarks.http_load import Address, ask
from benchmarks.http_wire import post
from skewless.contract.keys import window_marker
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.view import WindowView
from skewless.infra.definitions.plans.applied_plan import AppliedPlanReader
from skewless.infra.log.catalog import log_ends
from skewless.infra.log.generations import Generations
from skewless.infra.platform.host.processes import read_processes
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.port import OnlineStore
from skewless.infra.reads.online.redis_store import RedisWriter

IN_FORCE, ON_SERVER, ON_STREAM, LIVE, ANSWERED = "in force", "server", "stream", "live", "answered"
_LOOK_S = 0.1  # it takes time from the server
_QUESTION = post("/predict", orjson.dumps({"model": MODEL, "rows": [{"card_id": 1}]}))


@dataclass(kw_only=True)
class Watch:
    """Notes when a change reaches what.

    Attributes:
        moments: seconds since 1970: when the new plan was in force, when the server and the stream worker said that
            they work on it, when the states of its views were live and held all of the log, and when another version
            of the model answered than at the beginning.
    """

    state: Path
    url: str
    address: Address
    moments: dict[str, float] = field(default_factory=dict)

    def until(self, moment: str, seconds: float) -> None:
        """Wait for a moment.

        Raises:
            ContestantError: it did not come in time, or looking for it failed.
        """
        deadline = time.monotonic() + seconds
        while moment not in self.moments:
            if self._looking.done():
                self._looking.result()
            if time.monotonic() > deadline:
                raise ContestantError(f"{moment!r} did not come within {seconds:g} s, only {self.moments}")
            time.sleep(_LOOK_S)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look in a thread, in the order in which a change goes its way, while the block runs."""
        self._plans, stop = AppliedPlanReader(ProjectState(self.state)), threading.Event()
        before, version = self._plans.hash(), self._version()
        with ThreadPoolExecutor(1) as pool, closing(RedisWriter(self.url)) as store:
            looks: list[Mapping[str, Callable[[], bool]]] = [
                {IN_FORCE: lambda: self._plans.hash() != before},
                {
                    ON_SERVER: lambda: self._is_on_plan("server"),
                    ON_STREAM: lambda: self._is_on_plan("stream"),
                    LIVE: lambda: self._is_live(self._plans.read(), store),
                },
                {ANSWERED: lambda: self._version() != version},
            ]
            self._looking: Future[None] = pool.submit(self._look, looks, stop)
            try:
                yield
            finally:
                stop.set()

    def _look(self, looks: list[Mapping[str, Callable[[], bool]]], stop: threading.Event) -> None:
        for stage in looks:
            left = dict(stage)
            while left and not stop.is_set():
                for moment in [name for name, came in left.items() if came()]:
                    self.moments[moment] = time.time()
                    del left[moment]
                time.sleep(_LOOK_S)

    def _is_on_plan(self, kind: str) -> bool:
        plans = [process.plan for process in read_processes(ProjectState(self.state)) if process.kind == kind]
        return plans == [self._plans.hash()]

    def _is_live(self, plan: FeaturePlan, store: OnlineStore) -> bool:
        return all(self._has_caught_up(plan.project, view, store) for view in plan.windows)

    def _has_caught_up(self, project: str, view: WindowView, store: OnlineStore) -> bool:
        live = Generations(ProjectState(self.state)).find_live(view)
        if live is None:
            return False
        ends = log_ends(ProjectState(self.state), view.source)
        reached = store.read_markers([window_marker(project, view, live.number, part) for part in ends])
        return all(mark is not None and mark.position >= end for mark, end in zip(reached, ends.values(), strict=True))

    def _version(self) -> str:
        (body,) = ask(self.address, [_QUESTION])
        return str(orjson.loads(body)["version"])
