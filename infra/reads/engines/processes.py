"""The engine of this machine: one worker process per core. With one worker, tasks run in this process."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path

from skewless.contract.settings import Settings
from skewless.infra.reads.engines.task import Task, TaskResult, lost_error, read_outcome, run_task

_ROOT = Path(__file__).parents[3]
_CHUNK = 1 << 16
# A worker does the same work again and again: it keeps the memory that a task has freed, in large pages. Otherwise,
# page faults of the kernel take a fifth of its time.
_ALLOCATORS = {
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}"
        for name, value in (("hugetlb", 1), ("mmap_threshold", 1 << 32), ("trim_threshold", 1 << 33))
    ),
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "DUCKDB_JE_MALLOC_CONF": "dirty_decay_ms:10000,muzzy_decay_ms:-1",
}


def open_engine(settings: Settings) -> ProcessExecutor:
    """Return the engine of this machine, by default with a worker per core that this process may use."""
    return ProcessExecutor(settings.engine_workers or len(os.sched_getaffinity(0)))


class ProcessExecutor:
    """Runs tasks in worker processes; see ``Executor`` for the contract.

    Workers are new interpreters, never forks, and stay for the next tasks. A worker ends when its stdin does: with
    ``close``, or with this process.

    Args:
        workers: number of processes.
        attempts: number of workers that a task may lose before it fails.
    """

    name = "processes"

    def __init__(self, workers: int, *, attempts: int = 5) -> None:
        self.workers = workers
        self._attempts = attempts
        self._idle: list[_Worker] = []

    def run(self, tasks: Sequence[Task]) -> Generator[TaskResult]:
        """Yield the result of each task, in the order in which they finish."""
        if self.workers == 1:
            yield from map(run_task, tasks)
            return
        waiting, attempts = deque(tasks), Counter[str]()
        busy: dict[_Worker, Task] = {}
        selector = selectors.DefaultSelector()
        try:
            while waiting or busy:
                while waiting and len(busy) < self.workers:
                    worker = self._take_worker()
                    busy[worker] = task = waiting.popleft()
                    selector.register(worker.output, selectors.EVENT_READ, worker)
                    worker.send(task)
                for key, _ in selector.select():
                    worker = key.data
                    is_alive, outcome = worker.receive()
                    if is_alive and outcome is None:
                        continue  # a part of a line
                    selector.unregister(worker.output)
                    task = busy.pop(worker)
                    if outcome is not None:
                        self._idle.append(worker)
                        yield read_outcome(task, outcome)
                        continue
                    worker.kill()
                    attempts[task.name] += 1
                    if attempts[task.name] == self._attempts:
                        raise lost_error(task, self._attempts)
                    waiting.append(task)
        finally:
            selector.close()
            for worker in busy:
                worker.kill()

    def close(self) -> None:
        """End the workers."""
        while self._idle:
            self._idle.pop().kill()

    def _take_worker(self) -> _Worker:
        with suppress(IndexError):  # another thread may have taken the last one
            return self._idle.pop()
        return _Worker()

    def pids(self) -> list[int]:
        """Return the process ids of idle workers."""
        return [worker.pid for worker in self._idle]


class _Worker:
    """A worker process: takes the text of a task per line on stdin, and writes a line per outcome to stdout."""

    def __init__(self) -> None:
        paths = [str(_ROOT), os.environ.get("PYTHONPATH")]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "skewless.infra.reads.engines.worker"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**_ALLOCATORS, **os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
            process_group=0,  # Ctrl-C reaches only the driver, which ends its workers
        )
        self._received = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> int:
        assert self._process.stdout is not None  # noqa: S101 - a pipe, see above
        return self._process.stdout.fileno()

    def send(self, task: Task) -> None:
        """Send a task; a dead worker is noticed by ``receive``."""
        line = memoryview(task.to_json().encode() + b"\n")
        assert self._process.stdin is not None  # noqa: S101 - a pipe, see above
        try:
            while line:
                line = line[self._process.stdin.write(line) :]
        except BrokenPipeError:
            return

    def receive(self) -> tuple[bool, bytes | None]:
        """Return whether the worker lives, and the outcome of its task if it is complete; call it if there is input."""
        chunk = os.read(self.output, _CHUNK)
        self._received += chunk
        if not self._received.endswith(b"\n"):
            return bool(chunk), None
        outcome, self._received = self._received, b""
        return bool(chunk), outcome

    def kill(self) -> None:
        """Kill the process, and wait for its end."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
