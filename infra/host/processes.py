"""Heartbeats of a project's processes: each writes a file with its plan about once a second (SEMANTICS 8.3)."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from skewless.infra.host.priority import run_at_low_priority, use_idle_time
from skewless.infra.storage.durable import make_folder
from skewless.infra.storage.project_state import ProjectState
from skewless.infra.telemetry.logger import EventLogger

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
        started_s, beat_s: times of its start and of its last heartbeat, seconds of real time.
        plan: hash of the plan that it uses; empty: none yet.
        detail: values specific to its kind, plain JSON.
    """

    kind: Kind
    host: str
    pid: int
    started_s: float
    beat_s: float
    plan: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    def silent_s(self, now_s: float) -> float:
        """Return the seconds since its last heartbeat."""
        return max(0.0, now_s - self.beat_s)

    def is_silent(self, now_s: float) -> bool:
        """Return whether it is dead or stuck: it has missed several heartbeats."""
        return self.silent_s(now_s) > SILENT_S


class ProcessRecord:
    """The heartbeat file of this process. It is deleted at the end; a killed process leaves its file behind.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: ProjectState, kind: Kind) -> None:
        self._own = Process(
            kind=kind, host=socket.gethostname(), pid=os.getpid(), started_s=time.time(), beat_s=time.time()
        )
        self._path = _folder(state) / f"{kind}-{self._own.host}-{self._own.pid}-{secrets.token_hex(4)}.json"
        self._staging = self._path.with_name(f".{self._path.name}.tmp")
        self._plan = ""
        _sweep(state, self._own)

    def send_heartbeat(self, plan: str, detail: Mapping[str, Any]) -> None:
        """Write a heartbeat, and log a change of the plan once; the write is not synced to disk."""
        if plan != self._plan:
            _log.info("plan_loaded", kind=self._own.kind, plan=plan, before=self._plan or None)
            self._plan = plan
        body = {**asdict(self._own), "beat_s": time.time(), "plan": plan, "detail": dict(detail)}
        try:
            make_folder(self._path.parent)
            # Readers see the old or the new file, never a part, because the rename is atomic.
            self._staging.write_text(json.dumps(body))
            self._staging.replace(self._path)
        except OSError as error:
            _log.warning("heartbeat_not_written", error=str(error))

    def close(self) -> None:
        """Delete the file, and the part of it that a full disk left."""
        self._path.unlink(missing_ok=True)
        self._staging.unlink(missing_ok=True)


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
    """Return the processes that run, or were killed and not replaced, by kind and start; corrupt files are skipped."""
    processes = []
    for path in _folder(state).glob("*.json"):
        try:
            processes.append(Process(**json.loads(path.read_bytes())))
        except (OSError, ValueError, TypeError):
            continue  # the process has just ended, or the power was cut
    return sorted(processes, key=lambda item: (item.kind, item.started_s))


def run_behind_servers(state: ProjectState, work: Callable[[], _T]) -> _T:
    """Run work and return its result; if a server runs on this machine, the work uses only its idle time."""
    return run_at_low_priority(work, use_idle_time) if is_served_here(state) else work()


def is_served_here(state: ProjectState) -> bool:
    """Return whether a server of the project runs on this machine."""
    host, now_s = socket.gethostname(), time.time()
    return any(
        process.kind == "server" and process.host == host and not process.is_silent(now_s)
        for process in read_processes(state)
    )


def _sweep(state: ProjectState, own: Process) -> None:
    """Delete files of killed processes of this kind on this machine, and all files that are a day old."""
    for path in _folder(state).glob("*.json"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _EXPIRY_S:
                path.unlink()
    for path in _folder(state).glob(f"{own.kind}-{own.host}-*.json"):
        pid = path.name.removeprefix(f"{own.kind}-{own.host}-").partition("-")[0]
        if pid.isdecimal() and not _is_alive(int(pid)):
            path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _folder(state: ProjectState) -> Path:
    return state / "processes"
