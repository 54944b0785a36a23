"""The port of engines, which run tasks: on processes of this machine, or on a Ray or Spark cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from skewless.contract.settings import Settings
from skewless.infra.platform.host.plugins import require_plugin
from skewless.infra.reads.engines.task import Task, TaskResult


class Executor(Protocol):
    """Runs tasks on an engine.

    A task whose worker was killed is tried again, a bounded number of times, and may also run twice at once: results
    of one task are equal, and ``Jobs.run`` compares them. So an executor may allow a second attempt.

    Attributes:
        name: of the engine.
        workers: number of tasks that it runs at once.
    """

    name: str
    workers: int

    def run(self, tasks: Sequence[Task]) -> Generator[TaskResult]:
        """Yield the result of each task, in the order in which they finish.

        Closing the iterator cancels the unfinished tasks: when ``close`` returns, no worker of this machine runs any
        of them. The end of this process, also by SIGKILL, ends them, too.

        Raises:
            SkewlessError: a task has failed, or has lost too many workers; the error names the task.
        """
        ...

    def close(self) -> None:
        """End the workers."""
        ...


def open_executor(name: str, settings: Settings) -> Executor:
    """Return the executor of an engine, an entry point of ``skewless.engines``; workers start with the first task.

    Raises:
        DefinitionError: there is no such engine, or its extra is not installed.
        SkewlessError: the cluster cannot be reached.
    """
    open_engine: Callable[[Settings], Executor] = require_plugin("skewless.engines", name)
    return open_engine(settings)
