"""Processes that write logs and kill themselves at a chosen durable step.

Run as a program it reads one order a line and forks for each, so that a kill costs no start.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa

from skewless.contract.errors import ConflictError
from skewless.infra.log.compaction import compact
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.spool import Spool
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.state.recovery import recover_logs
from skewless_cloud.storage import CloudStorage
from tests.integration.infra.partition_logs import rows, sweep
from tests.servers.object_storage import CREDENTIALS

ROOT = Path(__file__).parents[3]
SCHEMA = pa.schema([("x", pa.int64())])
WRITERS, WINS = 16, 4
Work = Callable[[ProjectState, str], object]


def _stage(state: ProjectState, partition: str) -> None:
    log = PartitionLog(state, partition)
    with log.stage_rows() as staged:
        staged.write(rows(4))
        staged.write(rows(5))
        log.commit_rows(staged)


def _race(state: ProjectState, partition: str) -> None:
    """Append as one of several writers, each of which opens the log again after it has lost."""
    own, won = os.getpid(), 0
    while won < WINS:
        log = PartitionLog(state, partition)
        try:
            while won < WINS:
                segment = log.append(rows(*[own] * (won % 3 + 1)))
                won += 1
                log.record_end(segment.first, segment.last, 1_000 + segment.last)
                if won % 2 == 0:
                    compact(log, keep=1, target_rows=20)
        except ConflictError:
            pass


def _race_processes(state: ProjectState, partition: str) -> None:
    children = [_fork(lambda: _race(state, partition)) for _ in range(WRITERS)]
    assert {os.waitpid(child, 0)[1] for child in children} == {0}


def _read_and_wait(state: ProjectState, partition: str) -> None:
    PartitionLog(state, partition).files()
    (state / "listed").touch()
    time.sleep(600)


WORKS: dict[str, Work] = {
    "append": lambda state, partition: PartitionLog(state, partition).append(rows(4, 5)),
    "stage": _stage,
    "compact": lambda state, partition: compact(PartitionLog(state, partition), keep=1, target_rows=2),
    "ship": lambda state, partition: Spool(state, partition, SCHEMA).ship(),
    "sweep": lambda state, _: sweep(state),
    "race": _race_processes,
    "read": _read_and_wait,
    "recover": lambda state, _: recover_logs(state),
}


class LogVictims:
    """Runs works in processes of their own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, work: str, state: ProjectState, partition: str, step: int = 0) -> bool:
        """Run a work until its n-th step; return whether it was killed there. 0: run all of it."""
        status = self.wait(self.start(work, state, partition, step))
        assert status in {0, -signal.SIGKILL}
        return status == -signal.SIGKILL

    def start(self, work: str, state: ProjectState, partition: str, step: int = 0) -> int:
        """Start a work; return the process id."""
        places = [str(state.folder), state.database_url, state.storage_url]
        return int(self._order({"work": work, "places": places, "partition": partition, "step": step}))

    def wait(self, pid: int) -> int:
        """Wait until a work has ended; return its exit status."""
        return int(self._order({"wait": pid}))

    def end(self, pid: int) -> None:
        """Kill a process, and wait for its end."""
        os.kill(pid, signal.SIGKILL)
        self.wait(pid)

    def _order(self, order: dict[str, Any]) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


@contextmanager
def log_victims() -> Iterator[LogVictims]:
    """Run the program of this module for the length of a block."""
    command = [sys.executable, "-m", "tests.integration.infra.log_victims"]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield LogVictims(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def die_at(step: int) -> None:
    """Kill this process before or after its durable steps, which are counted from 1: two for each."""
    passed = 0

    def count() -> None:
        nonlocal passed
        passed += 1
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(real: Callable[..., Any], *, is_step: Callable[..., bool] = lambda *_: True) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - of any function
            if not is_step(*arguments):
                return real(*arguments, **named)
            count()
            result = real(*arguments, **named)
            count()
            return result

        return call

    for name in ("_upload", "delete"):
        setattr(CloudStorage, name, wrap(getattr(CloudStorage, name)))

    def is_commit(_connection: object, sql: object, *_: object) -> bool:
        return sql == "COMMIT"

    class DyingConnection(sqlite3.Connection):
        execute = wrap(sqlite3.Connection.execute, is_step=is_commit)

    # A kill is not a power cut: it loses nothing that was written.
    setattr(os, "fsync", lambda _: None)  # noqa: B010 - its type names the argument
    for name in ("fsync", "link", "unlink", "replace", "utime"):
        setattr(os, name, wrap(getattr(os, name)))
    sqlite3.connect = partial(sqlite3.connect, factory=DyingConnection)  # type: ignore[assignment]
    psycopg.Connection.execute = wrap(psycopg.Connection.execute, is_step=is_commit)  # type: ignore[method-assign]


def _fork(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    return child


def _follow(order: dict[str, Any]) -> int:
    if "wait" in order:
        return os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])

    def work() -> None:
        if order["step"]:
            die_at(order["step"])
        folder, *urls = order["places"]
        os.environ.update(CREDENTIALS)
        WORKS[order["work"]](ProjectState(Path(folder), *urls), order["partition"])

    return _fork(work)


if __name__ == "__main__":
    for name in ("pandas", "pyarrow.compute", "obstore.store"):  # once, and not in each process
        import_module(name)
    for line in sys.stdin:
        sys.stdout.write(f"{_follow(json.loads(line))}\n")
        sys.stdout.flush()
