"""The ledger of the scheduler: the holders of the lease, and all runs.

::

    scheduler/terms/TOKEN.json          the holder of the lease with this fencing token, and its start
    scheduler/runs/JOB/known.json       when the job was first seen: earlier ticks were not missed
    scheduler/runs/JOB/TIME.json        a run started: the tick is claimed
    scheduler/runs/JOB/TIME.end.json    it ended, or a later holder recorded it as lost

Each file is complete when it gets its name by a hard link, which fails if the name exists. So each tick runs once,
even if two schedulers claim it. A former holder cannot write, because the file of a later term exists.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skewless.contract.errors import ConflictError, RequestError, StoreError
from skewless.infra.jobs.run import Run, RunId, State
from skewless.infra.storage.durable import create_durable, hold_lock
from skewless.infra.storage.project_state import ProjectState

FOLDER = "scheduler"
_END = ".end"
_KNOWN = "known"


@dataclass(frozen=True, kw_only=True)
class _Name:
    """The name of a run's file, unparsed: comparing tens of thousands of names is cheaper than parsing them."""

    folder: str
    stem: str

    def __str__(self) -> str:
        return f"{self.folder}@{self.stem}"


class Ledger:
    """The terms and runs of one project; any process may read them.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: ProjectState) -> None:
        self._terms = state / FOLDER / "terms"
        self._runs = state / FOLDER / "runs"
        self._lock = state / FOLDER / ".lock"

    def latest_token(self) -> int:
        """Return the highest fencing token of all terms, 0 before the first term."""
        return max((int(path.stem) for path in self._terms.glob("[0-9]*.json")), default=0)

    def begin_term(self, token: int, holder: str, now_us: int) -> None:
        """Record a new holder; writes of earlier holders are rejected from now on.

        Raises:
            ConflictError: a term with this token or a later token exists.
        """
        with hold_lock(self._lock):
            if token <= self.latest_token():
                raise _conflict(token, self.latest_token())
            self._sweep()
            _create(self._terms / f"{token:010d}.json", {"token": token, "holder": holder, "started_us": now_us})

    def register_job(self, job: str, token: int, now_us: int) -> int:
        """Return the time when a job was first registered, microseconds; register it now if it is new.

        Raises:
            ConflictError: a later term exists.
        """
        path = self._runs / RunId(job=job, tick_us=0).folder / f"{_KNOWN}.json"
        if not path.exists():
            self._write(token, path, {"since_us": now_us})
        # Read it back: another scheduler may have registered the job first, and its time counts.
        return int(_read(path)["since_us"])

    def start(self, run: Run) -> bool:
        """Record the start of a run; return False if the tick was already claimed.

        Raises:
            ConflictError: a later term exists.
        """
        body = {
            "cause": run.cause,
            "token": run.token,
            "inputs": run.inputs,
            "started_us": run.started_us,
        }
        return self._write(run.token, self._path(run.id), body)

    def end(
        self,
        run: Run,
        state: State,
        now_us: int,
        *,
        token: int,
        outputs: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> Run:
        """Record the end of a run; return the recorded run. The first recorded end counts.

        Raises:
            ConflictError: a later term exists.
        """
        body = {"state": state, "ended_us": now_us, "outputs": outputs or {}, "error": error, "token": token}
        self._write(token, self._path(run.id, _END), body)
        return self.get(run.id)

    def get(self, run_id: RunId) -> Run:
        """Return a run.

        Raises:
            RequestError: the ledger does not have it.
        """
        try:
            start = _read(self._path(run_id))
        except FileNotFoundError as error:
            fix = "copy one from `skewless runs list`"
            raise RequestError("run", "is not in the ledger", value=str(run_id), fix=fix) from error
        run = Run(id=run_id, **start)
        try:
            end = _read(self._path(run_id, _END))
        except FileNotFoundError:
            return run
        end.pop("token")
        return replace(run, **end)

    def ids(self, job: str | None = None) -> list[RunId]:
        """Return the runs of a job, or of all jobs, in order of their ticks; only file names are read."""
        return list(self.read_latest_first(job))[::-1]

    def read_latest_first(self, job: str | None = None) -> Iterator[RunId]:
        """Yield the runs of a job, or of all jobs, latest tick first."""
        names = [name for name in self._names(job) if not name.stem.endswith(_END)]
        return (RunId.parse(str(name)) for name in sorted(names, key=_sort_key, reverse=True))

    def open(self) -> list[RunId]:
        """Return the runs without an end, in order of their ticks."""
        names = set(self._names(None))
        starts = [name for name in names if not name.stem.endswith(_END)]
        # From file names alone: a ledger may have tens of thousands of runs.
        running = [name for name in starts if replace(name, stem=name.stem + _END) not in names]
        return [RunId.parse(str(name)) for name in sorted(running, key=_sort_key)]

    def prune(self, before_us: int) -> int:
        """Delete the runs that were due before a time, except each job's latest run; return their number.

        The latest run stays, because it shows up to which tick no run was missed.
        """
        running = set(self.open())
        removed = 0
        for job in sorted({run_id.job for run_id in self.ids()}):
            for run_id in self.ids(job)[:-1]:
                if run_id.tick_us < before_us and run_id not in running:
                    # In this order a kill leaves an end without a start, which nobody reads.
                    # A start without an end would look like a lost run.
                    self._path(run_id).unlink(missing_ok=True)
                    self._path(run_id, _END).unlink(missing_ok=True)
                    removed += 1
        return removed

    def _write(self, token: int, path: Path, body: Mapping[str, Any]) -> bool:
        # The check and the write are under one lock, so no new term can begin between them.
        with hold_lock(self._lock):
            latest = self.latest_token()
            if token < latest:
                raise _conflict(token, latest)
            return _create(path, body)

    def _names(self, job: str | None) -> Iterator[_Name]:
        for folder in self._folders() if job is None else [RunId(job=job, tick_us=0).folder]:
            try:
                with os.scandir(self._runs / folder) as entries:
                    names = [entry.name for entry in entries]
            except (FileNotFoundError, ValueError):  # a name with a zero byte is not a folder's
                continue
            for name in names:
                # Skips known.json and the temporary files of writers.
                if name[0].isdigit():
                    yield _Name(folder=folder, stem=name.removesuffix(".json"))

    def _folders(self) -> list[str]:
        return [path.name for path in self._runs.iterdir()] if self._runs.is_dir() else []

    def _sweep(self) -> None:
        """Delete the temporary files of killed writers; the caller holds the lock, so no writer is active."""
        for folder in (self._terms, *(self._runs / name for name in self._folders())):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)

    def _path(self, run_id: RunId, suffix: str = "") -> Path:
        return self._runs / run_id.folder / f"{run_id.stem}{suffix}.json"


def _sort_key(name: _Name) -> tuple[str, str]:
    """Return the sort key of a name: tick, then job, then attempt. Fractions of a second sort after the full second."""
    return name.stem.replace(".", "Z."), name.folder


def _create(path: Path, body: Mapping[str, Any]) -> bool:
    try:
        create_durable(path, (json.dumps(body, sort_keys=True) + "\n").encode())
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        fix = "restore the file, or move it out of the folder"
        raise StoreError(f"ledger entry '{path.parent.name}/{path.name}'", "is corrupt", fix=fix) from error
    return body


def _conflict(token: int, latest: int) -> ConflictError:
    return ConflictError(
        f"scheduler with fencing token {token}",
        f"has lost the lease to the scheduler with token {latest}",
        fix="do nothing: the other scheduler continues",
    )
