"""Kills processes that work for a driver: ``python -m tests.worlds.killer DRIVER KILLS MARK``."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# What the command of an engine's worker contains. Spark's workers are forks of their daemon.
MARKS = {"processes": "engines.worker", "ray": "ray::execute", "spark": "pyspark.daemon"}
# Longer than a worker needs to start, so that a task is not killed each time.
_PAUSE_S = 0.6


@contextmanager
def killing_workers(kills: int, engine: str = "processes") -> Iterator[Callable[[], bool]]:
    """Kill workers of this process at random moments; yield the function that says whether more kills will come."""
    command = [sys.executable, "-m", __name__, str(os.getpid()), str(kills), MARKS[engine]]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield lambda: process.poll() is None
        except BaseException:
            process.kill()  # it would wait for workers
            raise
        assert process.stdout is not None
        assert int(process.stdout.read()) == kills


def find_workers(driver: int, mark: str) -> list[int]:
    """Return the processes that descend from a driver and have a mark in their command, without those that fork them.

    Workers whose daemon was killed would descend from no driver any more.
    """
    parents: dict[int, int] = {}
    marked = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid = int(process.name)
            parents[pid] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if mark.encode() in (process / "cmdline").read_bytes():
                marked.append(pid)
    forking = {parents[pid] for pid in marked}
    return [pid for pid in marked if pid not in forking and driver in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> list[int]:
    found = []
    while pid in parents:
        pid = parents[pid]
        found.append(pid)
    return found


def main(driver: int, kills: int, mark: str) -> None:
    choose, killed = random.Random(1), 0
    while killed < kills:
        time.sleep(choose.uniform(0.0, 0.4))
        workers = [pid for pid in find_workers(driver, mark) if pid != os.getpid()]
        with suppress(IndexError, ProcessLookupError):
            os.kill(choose.choice(workers), signal.SIGKILL)
            killed += 1
            time.sleep(_PAUSE_S)
    sys.stdout.write(f"{killed}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
