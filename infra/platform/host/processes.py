"""Heartbeats of a project's processes: each records its plan about once a second (SEMANTICS 8.3)."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.platform.host.priority import run_at_low_priority, use_idle_time
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.leases import is_process, machine_id
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.logger import EventLogger

_T = TypeVar("_T")
Kind = Literal["server", "stream", "scheduler"]
SILENT_S = 5.0
_HEARTBEAT_S = 1.0
_EXPIRY_S = 86_400.0
_log = EventLogger()


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that works on a project.

    Args:
        started_s: time of its start, seconds, by the clock of its machine.
        beat_s: time of its last heartbeat, seconds, by the clock of the database: clocks of machines may differ.
        plan: hash of the plan that it uses; empty: none yet.
        detail: values specific to its kind, plain JSON.
        has_ended: it was killed on this machine, where its pid is gone; found by the reader.
    """

    kind: Kind
    host: str
    pid: int
    started_s: float
    beat_s: float
    plan: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    has_ended: bool = False

    def silent_s(self, now_s: float) -> float:
        """Return the seconds since its last heartbeat.

        Args:
            now_s: time of the database, seconds.
        """
        return max(0.0, now_s - self.beat_s)

    def is_silent(self, now_s: float) -> bool:
        """Return whether it is dead or stuck: it has missed several heartbeats, or has ended on this machine."""
        return self.has_ended or self.silent_s(now_s) > SILENT_S


class ProcessRecord:
    """The heartbeat of this process in the database. It is deleted at the end; a killed process leaves it behind.

    Args:
        state: of the project.
    """

    def __init__(self, state: ProjectState, kind: Kind) -> None:
        now_s = time.time()
        self._own = Process(kind=kind, host=socket.gethostname(), pid=os.getpid(), started_s=now_s, beat_s=now_s)
        self._name = f"{kind}-{self._own.host}-{self._own.pid}-{_here()}-{secrets.token_hex(4)}"
        self._database, self._documents = state.database, _documents(state)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="heartbeat-writer")
        self._write: Future[None] | None = None
        self._is_swept = False
        self._problem: str | None = None

    def send_heartbeat(self, plan: str, detail: Mapping[str, Any]) -> None:
        """Write a heartbeat, and log a change of the plan once.

        The write is in another thread. While the database is slow, it skips heartbeats, and nobody waits.
        """
        if plan != self._own.plan:
            _log.info("plan_loaded", kind=self._own.kind, plan=plan, before=self._own.plan or None)
        self._own = replace(self._own, plan=plan, detail=dict(detail))
        if self._write is None or self._write.done():
            self._write = self._writer.submit(self._log_errors, self._put)

    def close(self) -> None:
        """Delete the heartbeat, after the write in progress."""
        if self._write is not None:
            self._writer.submit(self._log_errors, partial(self._documents.delete, self._name))
        self._writer.shutdown()

    def _put(self) -> None:
        if not self._is_swept:
            self._sweep()
            self._is_swept = True
        self._documents.put(self._name, asdict(replace(self._own, beat_s=self._database.now_us() / 1e6)))

    def _sweep(self) -> None:
        """Delete the heartbeats of killed processes of this kind and machine, and all that are a day old."""
        now_s = self._database.now_us() / 1e6
        for name, item in _read(self._documents):
            is_dead = (item.kind, item.host) == (self._own.kind, self._own.host) and not is_process(item.pid)
            if is_dead or item.silent_s(now_s) > _EXPIRY_S:
                self._documents.delete(name)

    def _log_errors(self, work: Callable[[], object]) -> None:
        try:
            work()
        except StoreError as error:
            if error.problem != self._problem:
                _log.warning("heartbeat_not_written", error=str(error))
            self._problem = error.problem
        else:
            self._problem = None


@contextmanager
def send_heartbeats(
    record: ProcessRecord, plan: Callable[[], str], detail: Callable[[], Mapping[str, Any]]
) -> Iterator[None]:
    """Send heartbeats about once a second, from another thread, until the block ends."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            record.send_heartbeat(plan(), detail())
            ended.wait(_HEARTBEAT_S)

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        record.close()


def read_processes(state: ProjectState) -> list[Process]:
    """Return the processes that run, or were killed and not replaced, by kind and start."""
    processes = [item for _, item in _read(_documents(state))]
    return sorted(processes, key=lambda item: (item.kind, item.started_s))


def run_behind_servers(state: ProjectState, work: Callable[[], _T]) -> _T:
    """Run work and return its result; if a server runs on this machine, the work uses only its idle time."""
    return run_at_low_priority(work, use_idle_time) if is_served_here(state) else work()


def is_served_here(state: ProjectState) -> bool:
    """Return whether a server of the project runs on this machine."""
    host, now_s = socket.gethostname(), state.database.now_us() / 1e6
    return any(
        process.kind == "server" and process.host == host and not process.is_silent(now_s)
        for process in read_processes(state)
    )


def reject_running(state: ProjectState) -> None:
    """Reject a change of the tables while a process of the project uses them.

    Raises:
        ConflictError: a process runs.
    """
    now_s = state.database.now_us() / 1e6
    for process in read_processes(state):
        if not process.is_silent(now_s):
            problem = f"has a running {process.kind}"
            raise ConflictError("project", problem, value=process.host, fix="stop it, then run again")


def _documents(state: ProjectState) -> Documents:
    return Documents(state.database, "process")


def _read(documents: Documents) -> Iterator[tuple[str, Process]]:
    for name, body in documents.list_all().items():
        with suppress(TypeError):  # of another release
            process = Process(**body)
            has_ended = f"-{_here()}-" in name and not is_process(process.pid)
            yield name, replace(process, has_ended=has_ended)


def _here() -> str:
    """Return a short identity of this machine and its process ids, which containers with one host name do not share."""
    return hashlib.sha256(machine_id().encode()).hexdigest()[:8]
