"""Kinds of tasks for tests, run by real workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from skewless.contract.errors import SourceError
from skewless.infra.engines.processes import ProcessExecutor
from skewless.infra.engines.task import Task, TaskResult

MODULE = "tests.worlds.tasks"


def make_tasks(function: str, count: int, **parameters: object) -> list[Task]:
    """Return tasks of one bucket each."""
    return [
        Task(kind=f"{MODULE}:{function}", repo="", plan="p", snapshot={}, first=i, end=i + 1, parameters=parameters)
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


class TwiceExecutor(ProcessExecutor):
    """Runs two attempts of each task at once, as an engine with speculation may do."""

    def run(self, tasks: Sequence[Task]) -> Generator[TaskResult]:
        """Yield the results of both attempts."""
        yield from super().run([task for task in tasks for _ in range(2)])


# Waits longer than a worker needs to start, so that a task is not killed each time.
_KILLER = """
import os, random, signal, time
from pathlib import Path
random.seed(1)
killed = 0
while killed < {kills}:
    time.sleep(random.uniform(0.0, 0.4))
    workers = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            command = (path / "cmdline").read_bytes()
            if int(parent) == {driver} and command.endswith(b"engines.worker\\0"):
                workers.append(int(path.name))
        except OSError:
            pass
    try:
        os.kill(random.choice(workers), signal.SIGKILL)
    except (IndexError, ProcessLookupError):
        continue
    killed += 1
    time.sleep(0.6)
print(killed)
"""


@contextmanager
def killing_workers(kills: int) -> Iterator[Callable[[], bool]]:
    """Kill workers of this process at random moments; yield the function that says whether more kills will come."""
    killer = _KILLER.format(driver=os.getpid(), kills=kills)
    with subprocess.Popen([sys.executable, "-c", killer], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield lambda: process.poll() is None
        except BaseException:
            process.kill()  # it would wait for workers
            raise
        assert process.stdout is not None
        assert int(process.stdout.read()) == kills
