"""The engine of a Spark cluster, by default Spark in local mode, which ends with this process."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyspark
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from skewless.contract.errors import SkewlessError, StoreError
from skewless.contract.settings import Settings
from skewless.infra.reads.engines.task import Task, TaskResult, execute, lost_error, read_outcome

_ATTEMPTS = 5
_POLL_S = 0.05
_END_S = 30.0
_LOST_TASK = re.compile(r"Task (\d+) in stage \S+ failed (\d+) times")
_OTHER_PYTHON = re.compile(r"different version: (\S+) than that in driver: (\d+\.\d+)")
_LOCAL = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def open_engine(settings: Settings) -> SparkExecutor:
    """Return the engine of the cluster of the settings.

    Raises:
        StoreError: the cluster cannot be reached, or Java is missing.
    """
    return SparkExecutor(settings.engine_address, settings.engine_workers)


class SparkExecutor:
    """Runs tasks as a Spark job with a partition per task; see ``Executor`` for the contract.

    Args:
        master: URL of the cluster; None: local mode. A program that has a session keeps it.
        workers: number of cores in local mode; 0: as many as this process may use.
    """

    name = "spark"

    def __init__(self, master: str | None, workers: int = 0) -> None:
        self._is_owner = SparkSession.getActiveSession() is None
        self._context = open_session(master, workers).sparkContext
        self.workers = int(self._context.defaultParallelism)

    def run(self, tasks: Sequence[Task]) -> Generator[TaskResult]:
        """Yield the result of each task, in the order in which they finish."""
        if not tasks:
            return
        job, done = _Job(self._context, tasks), 0
        try:
            while done < len(tasks):
                # Asked first: the outcomes of a job that has ended are complete.
                has_ended = job.has_ended
                for number, outcome in job.outcomes[done:]:
                    done += 1
                    yield read_outcome(tasks[number], outcome)
                if done < len(tasks):
                    if has_ended:
                        raise job.failure()
                    time.sleep(_POLL_S)
        finally:
            job.cancel()

    def close(self) -> None:
        """End the workers, and a session that this executor has started."""
        if self._is_owner:
            self._context.stop()


class _Outcomes:
    """Collects outcomes, as an accumulator: Spark sends them to the driver with each finished task, once per task."""

    def zero(self, _value: list[tuple[int, str]]) -> list[tuple[int, str]]:
        return []

    def addInPlace(self, value: list[tuple[int, str]], more: list[tuple[int, str]]) -> list[tuple[int, str]]:  # noqa: N802 - Spark's name
        value += more
        return value


class _Guard:
    """A file that each process of this machine has locked while it runs a task of a job, until its own end."""

    def __init__(self) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="skewless-", suffix=".lock")  # noqa: SIM115 - as long as the job
        self.address = (socket.gethostname(), self._file.name)

    def close(self, wait_s: float = 0.0) -> None:
        """Keep out processes that come later, and wait for the others."""
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_POLL_S)
        self._file.close()


@contextmanager
def enter(guard: tuple[str, str]) -> Iterator[None]:
    """Hold the guard of a job while its task runs on the machine of the driver; elsewhere there is none.

    Raises:
        FileNotFoundError: the job was cancelled.
    """
    host, path = guard
    if host != socket.gethostname():
        yield
        return
    with Path(path).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        Path(path).stat()  # still there
        yield


class _Job:
    """A Spark job that runs while this process does other things."""

    def __init__(self, context: pyspark.SparkContext, tasks: Sequence[Task]) -> None:
        self._context, self._tasks = context, tasks
        self._group = f"skewless-{uuid.uuid4().hex}"
        self._error: Exception | None = None
        self._outcomes = context.accumulator([], _Outcomes())
        self._guard = _Guard()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    @property
    def outcomes(self) -> list[tuple[int, str]]:
        """The number of each finished task, and the text of its outcome."""
        outcomes: list[tuple[int, str]] = self._outcomes.value
        return outcomes

    def failure(self) -> SkewlessError:
        """Return the error of a job that has failed."""
        text = str(self._error)
        # Before the attempts, which it has used up.
        other = _OTHER_PYTHON.search(text)
        if other is not None:
            problem = f"have Python {other[1]}, and this process has Python {other[2]}"
            fix = f"set PYSPARK_PYTHON to a Python {other[2]} that all workers have, or run the command with {other[1]}"
            return StoreError("Spark workers", problem, fix=fix)
        lost = _LOST_TASK.search(text)
        if lost is not None:
            return lost_error(self._tasks[int(lost[1])], int(lost[2]))
        return StoreError("Spark job", f"has failed: {text.splitlines()[0]}", fix="run the command again to continue")

    def cancel(self) -> None:
        """End the tasks that still run, and wait until no process of this machine runs one."""
        if self.has_ended:
            self._guard.close()
            return
        self._context.cancelJobGroup(self._group)
        self._thread.join()
        # Spark kills the processes of a cancelled job only two seconds later.
        self._guard.close(_END_S)

    def _run(self) -> None:
        outcomes, guard = self._outcomes, self._guard.address

        def work(item: tuple[int, str]) -> None:
            with enter(guard):
                outcomes.add([(item[0], execute(item[1]))])

        try:
            self._context.setJobGroup(self._group, "skewless", interruptOnCancel=True)
            texts = [(number, task.to_json()) for number, task in enumerate(self._tasks)]
            self._context.parallelize(texts, len(texts)).foreach(work)
        except (Py4JError, PySparkException, OSError) as error:
            self._error = error


def open_session(master: str | None, workers: int = 0) -> SparkSession:
    """Return the session of this process, or start one.

    Args:
        master: URL of the cluster; None: local mode on loopback.
        workers: number of cores in local mode; 0: as many as this process may use.

    Raises:
        StoreError: the cluster cannot be reached, or Java is missing.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_HOME", str(Path(pyspark.__file__).parent))
    # Without this number, local mode fails with the first killed worker.
    local = f"local[{workers or len(os.sched_getaffinity(0))},{_ATTEMPTS}]"
    builder = SparkSession.builder.appName("skewless").master(master or local)
    if (master or local).startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        builder = builder.config(map=_LOCAL)
    try:
        return builder.getOrCreate()
    except (Py4JError, PySparkException, OSError) as error:
        raise _start_error(master, error) from error


def _start_error(master: str | None, error: Exception) -> StoreError:
    home = os.environ.get("JAVA_HOME")  # as Spark looks for it
    if shutil.which(f"{home}/bin/java" if home else "java") is None:
        fix = "install Java 17 or later, or correct JAVA_HOME"
        return StoreError("Spark", f"needs Java, and {home or 'PATH'} has none", fix=fix)
    if master is None:
        problem, fix = f"cannot be started: {str(error).splitlines()[0]}", "read Spark's own messages above"
        return StoreError("Spark of this machine", problem, fix=fix)
    fix = "start it, or correct the setting 'engine_address'; Spark's own messages above have the reason"
    return StoreError(f"Spark master {master}", "cannot be reached", fix=fix)
