"""A Spark cluster of two executors that loses one: ``python -m tests.spark.losses FOLDER``, in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from skewless.contract.settings import Settings
from skewless.infra.engines.port import open_executor
from tests.worlds.engine_contract import check_losses


def main(folder: Path) -> None:
    executor = open_executor("spark", Settings(engine_address="local-cluster[2,1,1024]"))
    assert executor.workers == 2
    check_losses(executor, lambda: os.kill(find_executors()[0], signal.SIGKILL), folder)
    executor.close()


def find_executors() -> list[int]:
    """Return the JVMs that run tasks and descend from this process."""
    parents: dict[int, int] = {}
    executors = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid = int(process.name)
            parents[pid] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if b"CoarseGrainedExecutorBackend" in (process / "cmdline").read_bytes():
                executors.append(pid)
    return [pid for pid in executors if os.getpid() in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> list[int]:
    found = []
    while pid in parents:
        pid = parents[pid]
        found.append(pid)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
