"""The engine of a project: whether work is large, the tasks of its jobs, and the project as a worker opens it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skewless.contract.buckets import split_buckets
from skewless.contract.settings import Settings, load_settings
from skewless.infra.log.bucket_order import BucketRange
from skewless.infra.platform.storage.objects import StoredObject
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.engines.job import Jobs, OnResult, spill_folder
from skewless.infra.reads.engines.port import Executor, open_executor
from skewless.infra.reads.engines.task import Task, TaskResult
from skewless.infra.reads.offline.engine import connect, read_memory_limit
from skewless.infra.reads.offline.views import OfflineViews

if TYPE_CHECKING:
    import duckdb

_LEAST_MEMORY = 256_000_000
_MANY_WORKERS = 4


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The engine of a project's large work.

    Args:
        open: opens the executor; called for the first large work.
        repo: folder of the project.
        state: of the project.
        settings: of the project.
        on_progress: called with the current activity, the rows done, and the rows in all.
    """

    open: Callable[[], Executor]
    repo: Path
    state: ProjectState
    settings: Settings
    on_progress: Callable[[str, int, int], None] = lambda *_: None

    def is_large(self, rows: int, cost: int = 1) -> bool:
        """Return whether work is too large for this process alone.

        The start of the workers takes a second, and each of them reads the log. DuckDB uses all cores in this process,
        too, so that few workers are not faster: without the setting ``engine``, there must be four.

        Args:
            cost: how much more work a row is than a row of a log that is read.
        """
        least = self.settings.engine_rows
        if not rows or rows * cost < least:
            return False
        return not least or self.open().workers >= (2 if "engine" in self.settings.model_fields_set else _MANY_WORKERS)

    @property
    def has_local_workers(self) -> bool:
        """Return whether all workers run on this machine, and can read its files."""
        return self.open().name == "processes"

    @contextmanager
    def run(
        self,
        kind: str,
        activity: str,
        total: int,
        plan_tasks: Callable[[], Sequence[Task]],
        on_result: OnResult | None = None,
    ) -> Iterator[list[TaskResult]]:
        """Run a job; see ``Jobs.run``.

        Args:
            activity, total: for ``on_progress``: the total is the number of rows of all results.
            on_result: called with each result, instead of ``on_progress``.
        """
        done = 0

        def report(result: TaskResult) -> None:
            nonlocal done
            done += result.rows
            self.on_progress(activity, done, total)

        with Jobs(state=self.state, executor=self.open()).run(kind, plan_tasks, on_result or report) as results:
            yield results

    def split(
        self,
        kind: str,
        buckets: int,
        *,
        connection: duckdb.DuckDBPyConnection,
        plan: str,
        snapshot: Mapping[str, Any],
        parameters: Mapping[str, Any],
        inputs: Sequence[StoredObject] = (),
        per_bucket: Sequence[StoredObject] = (),
        least: int = 1,
        per_worker: int = 1,
        secrets: dict[str, Any] | None = None,
    ) -> list[Task]:
        """Return the tasks of one job.

        Args:
            buckets: number of buckets.
            connection: of this process; on one machine, the workers share its memory limit.
            inputs: objects that each task reads.
            per_bucket: an object for each bucket, that its task reads.
            least: the least number of tasks.
            per_worker: number of tasks for each worker, unless there must be more.
            secrets: further settings of the workers.
        """
        executor, settings = self.open(), self.settings.model_dump(mode="json", exclude_defaults=True)
        is_here = self.has_local_workers or self.settings.engine_address is None
        if is_here and executor.workers > 1:
            share = max(_LEAST_MEMORY, read_memory_limit(connection) // executor.workers)
            settings |= {"memory_limit": f"{share // 1_000_000}MB", "threads": 1}
        return [
            Task(
                kind=kind,
                repo=str(self.repo),
                plan=plan,
                snapshot=snapshot,
                first=first,
                end=end,
                parameters=parameters,
                inputs=(*inputs, *per_bucket[first:end]),
                settings=settings | (secrets or {}),
            )
            for first, end in split_buckets(buckets, max(executor.workers * per_worker, least))
        ]


@contextmanager
def hold_engine(repo: Path, state: ProjectState, settings: Settings) -> Iterator[Engine]:
    """Yield the engine of a project; its workers start with the first large work, and end with the block."""
    with ExitStack() as stack:

        @cache
        def open_once() -> Executor:
            executor = open_executor(settings.engine, settings)
            stack.callback(executor.close)
            return executor

        yield Engine(open=open_once, repo=repo, state=state, settings=settings)


@dataclass(frozen=True, kw_only=True)
class WorkerProject:
    """The parts of a project that tasks use."""

    settings: Settings
    views: OfflineViews


def open_project(task: Task, buckets: int | None = None) -> WorkerProject:
    """Return the project of a task; a worker opens each project once.

    Args:
        buckets: number of buckets of entities, if the task has some of them: its views read no others.
    """
    project = _open(task.repo, json.dumps(task.settings, sort_keys=True))
    if buckets is None:
        return project
    own, all_views = BucketRange(first=task.first, end=task.end, count=buckets), project.views
    return replace(project, views=OfflineViews(all_views.state, all_views.connection, own))


@cache
def _open(repo: str, text: str) -> WorkerProject:
    settings = load_settings(Path(repo), **json.loads(text))
    state = ProjectState.of(Path(repo), settings)
    connection = connect(spill_folder(state), memory_limit=settings.memory_limit, threads=settings.threads)
    return WorkerProject(settings=settings, views=OfflineViews(state, connection))
