"""Which processes of a project run, and on which plan: each says so itself, about once a second (SEMANTICS 8.3)."""

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

import structlog

from skewless.infra.host.priority import run_aside, use_idle_time
from skewless.infra.storage.durable import make_folder

_T = TypeVar("_T")
Kind = Literal["server", "stream", "scheduler"]
SILENT_S = 5.0
_BEAT_S = 1.0
_FORGOTTEN_S = 86_400.0
_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that works on a project.

    Args:
        started_s, beat_s: when it began and when it was last heard of, seconds of real time.
        plan: hash of the plan that it works on; empty: none yet.
        detail: what its kind says of itself, plain JSON values.
    """

    kind: Kind
    host: str
    pid: int
    started_s: float
    beat_s: float
    plan: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    def silent_s(self, now_s: float) -> float:
        """Return for how long it has not been heard of."""
        return max(0.0, now_s - self.beat_s)

    def is_silent(self, now_s: float) -> bool:
        """Say whether it is dead or stuck: it has not been heard of for several of its beats."""
        return self.silent_s(now_s) > SILENT_S


class ProcessRecord:
    """Says that this process runs, in a file of its own that goes with it; a killed one leaves its file behind.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: Path, kind: Kind) -> None:
        self._me = Process(
            kind=kind, host=socket.gethostname(), pid=os.getpid(), started_s=time.time(), beat_s=time.time()
        )
        self._path = _folder(state) / f"{kind}-{self._me.host}-{self._me.pid}-{secrets.token_hex(4)}.json"
        self._staging = self._path.with_name(f".{self._path.name}.tmp")
        self._plan = ""
        _sweep(state, self._me)

    def beat(self, plan: str, detail: Mapping[str, Any]) -> None:
        """Say that it lives, and once in the log that it has taken up another plan; nothing waits for the disk."""
        if plan != self._plan:
            _log.info("plan_taken_up", kind=self._me.kind, plan=plan, before=self._plan or None)
            self._plan = plan
        body = {**asdict(self._me), "beat_s": time.time(), "plan": plan, "detail": dict(detail)}
        try:
            make_folder(self._path.parent)
            self._staging.write_text(json.dumps(body))
            self._staging.replace(self._path)
        except OSError as error:
            _log.warning("presence_not_written", error=str(error))

    def close(self) -> None:
        """Take the file away, and what a full disk left of it."""
        self._path.unlink(missing_ok=True)
        self._staging.unlink(missing_ok=True)


@contextmanager
def beating(
    presence: ProcessRecord, plan: Callable[[], str], detail: Callable[[], Mapping[str, Any]]
) -> Iterator[None]:
    """Say about once a second that the process runs, from a thread of its own, until the block ends."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.is_set():
            presence.beat(plan(), detail())
            ended.wait(_BEAT_S)

    thread = threading.Thread(target=beat, name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        presence.close()


def read_processes(state: Path) -> list[Process]:
    """Return the processes that run, or were killed and not replaced, by kind and start; damaged files are left out."""
    found = []
    for path in _folder(state).glob("*.json"):
        try:
            found.append(Process(**json.loads(path.read_bytes())))
        except (OSError, ValueError, TypeError):
            continue  # it has just ended, or the power was cut
    return sorted(found, key=lambda item: (item.kind, item.started_s))


def beside_servers(state: Path, work: Callable[[], _T]) -> _T:
    """Return what work returns; if a server runs on this machine, work takes only the time that it leaves idle."""
    return run_aside(work, use_idle_time) if is_served_here(state) else work()


def is_served_here(state: Path) -> bool:
    """Say whether a server of the project runs on this machine."""
    own, now_s = socket.gethostname(), time.time()
    return any(
        process.kind == "server" and process.host == own and not process.is_silent(now_s)
        for process in read_processes(state)
    )


def _sweep(state: Path, me: Process) -> None:
    """Remove what killed processes of the same kind left on this machine, and what is silent for a day anywhere."""
    for path in _folder(state).glob("*.json"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _FORGOTTEN_S:
                path.unlink()
    for path in _folder(state).glob(f"{me.kind}-{me.host}-*.json"):
        pid = path.name.removeprefix(f"{me.kind}-{me.host}-").partition("-")[0]
        if pid.isdecimal() and not _lives(int(pid)):
            path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _folder(state: Path) -> Path:
    return state / "processes"
