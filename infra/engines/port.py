"""The port of engines, which run tasks: on processes of this machine, or on a Ray or Spark cluster."""

from __future__ import annotations

import importlib
from collections.abc import Generator, Sequence
from typing import Protocol

from skewless.contract.errors import DefinitionError
from skewless.contract.names import check_known
from skewless.contract.settings import Settings
from skewless.infra.engines.task import Task, TaskResult

# Each module has a function `open_engine(settings) -> Executor`; engines with an extra are imported only if chosen.
ENGINES = {
    "processes": "skewless.infra.engines.processes",
    "ray": "skewless.infra.engines.ray_engine",
    "spark": "skewless.infra.engines.spark_engine",
}


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
    """Return the executor of an engine; workers start with the first task.

    Raises:
        DefinitionError: there is no such engine, or its extra is not installed.
        SkewlessError: the cluster cannot be reached.
    """
    check_known("engine", name, ENGINES)
    try:
        module = importlib.import_module(ENGINES[name])
    except ImportError as error:
        fix = f"install skewless with the extra '{name}', or use the engine 'processes'"
        raise DefinitionError(f"engine {name!r}", "is not installed", value=str(error), fix=fix) from error
    executor: Executor = module.open_engine(settings)
    return executor
