"""Kinds of tasks for tests, run by real workers; ``tests/as_installed`` registers them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from skewless.contract.errors import SourceError
from skewless.infra.reads.engines.task import Task, TaskResult


def make_tasks(function: str, count: int, **parameters: object) -> list[Task]:
    """Return tasks of one bucket each."""
    return [
        Task(kind=f"test_{function}", repo="", plan="p", snapshot={}, first=i, end=i + 1, parameters=parameters)
        for i in range(count)
    ]


def count(task: Task) -> TaskResult:
    """Return the task's bucket as its digest; wait ``seconds`` first."""
    time.sleep(float(task.parameters.get("seconds", 0)))
    print("a library that prints")  # noqa: T201 - must not reach the pipe
    return TaskResult(rows=task.first, digest=str(task.first), values={"pid": os.getpid()})


def die_once(task: Task) -> TaskResult:
    """Kill the worker of each task's first attempt."""
    mark = Path(task.parameters["folder"]) / str(task.first)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return count(task)


def die(_task: Task) -> TaskResult:
    """Kill the worker of each attempt."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def linger(task: Task) -> TaskResult:
    """Write the worker's process id, and wait."""
    (Path(task.parameters["folder"]) / str(os.getpid())).touch()
    time.sleep(600)
    return count(task)


def reject(task: Task) -> TaskResult:
    """Fail in bucket 1."""
    if task.first == 1:
        raise SourceError("file 'x'", "is corrupt", value=7, fix="restore it")
    return count(task)


def crash(_task: Task) -> TaskResult:
    """Fail with an error of the program."""
    raise ZeroDivisionError("of a test")
