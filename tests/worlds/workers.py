"""Executors of tests: one whose workers stay for all tests of a process, and one that runs each task twice."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence

from skewless.infra.reads.engines.processes import ProcessExecutor, _Worker
from skewless.infra.reads.engines.task import Task, TaskResult
from tests.servers.object_storage import CREDENTIALS


class LastingExecutor(ProcessExecutor):
    """Keeps its workers for the next project when a project closes it: each starts in seconds of CPU.

    On a busy machine, a worker may be killed before it has started, so a task has many attempts.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers, attempts=100)

    def close(self) -> None:
        """Do nothing: ``end`` ends the workers."""

    def end(self) -> None:
        """End the workers."""
        super().close()

    def _take_worker(self) -> _Worker:
        before = dict(os.environ)
        os.environ.update(CREDENTIALS)  # a later task may read the storage of the tests
        try:
            return super()._take_worker()
        finally:
            for name in CREDENTIALS.keys() - before.keys():
                del os.environ[name]


class TwiceExecutor(ProcessExecutor):
    """Runs two attempts of each task at once, as an engine with speculation may do.

    Args:
        inner: has the workers, which stay.
    """

    def __init__(self, inner: ProcessExecutor) -> None:
        super().__init__(inner.workers)
        self._inner = inner

    def run(self, tasks: Sequence[Task]) -> Generator[TaskResult]:
        """Yield the results of both attempts."""
        yield from self._inner.run([task for task in tasks for _ in range(2)])


WORKERS = LastingExecutor(2)
