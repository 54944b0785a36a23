"""The ledger of the scheduler: who held the lease, and what ran.

::

    scheduler/terms/TOKEN.json          who held the lease under this fencing token, since when
    scheduler/runs/JOB/known.json       since when the job is known: what was due before was not missed
    scheduler/runs/JOB/TIME.json        a run began: the tick is taken
    scheduler/runs/JOB/TIME.end.json    it ended, or a later holder said that it was lost

Each file is linked into place whole, once. So a tick is run once, whoever claims it; and a holder whose time is over
is refused, because the file of a later term stands there.
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

FOLDER = "scheduler"
_END = ".end"
_KNOWN = "known"


@dataclass(frozen=True, kw_only=True)
class _Name:
    """The name of a file of a run: to compare ten thousands of them costs less than to parse them."""

    folder: str
    stem: str

    def __str__(self) -> str:
        return f"{self.folder}@{self.stem}"


class Ledger:
    """The terms and runs of one project; any process may read them.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: Path) -> None:
        self._terms = state / FOLDER / "terms"
        self._runs = state / FOLDER / "runs"
        self._lock = state / FOLDER / ".lock"

    def newest_token(self) -> int:
        """Return the highest fencing token that a term began with, 0 before the first."""
        return max((int(path.stem) for path in self._terms.glob("[0-9]*.json")), default=0)

    def begin_term(self, token: int, holder: str, now_us: int) -> None:
        """Record a new holder; what those before it would write is refused from now on.

        Raises:
            ConflictError: a term with this token or a later one has begun.
        """
        with hold_lock(self._lock):
            if token <= self.newest_token():
                raise _over(token, self.newest_token())
            self._sweep()
            _create(self._terms / f"{token:010d}.json", {"token": token, "holder": holder, "started_us": now_us})

    def know(self, job: str, token: int, now_us: int) -> int:
        """Return since when a job is known, which is now if it was not.

        Raises:
            ConflictError: the term of this token is over.
        """
        path = self._runs / RunId(job=job, tick_us=0).folder / f"{_KNOWN}.json"
        if not path.exists():
            self._write(token, path, {"since_us": now_us})
        return int(_read(path)["since_us"])

    def start(self, run: Run) -> bool:
        """Record that a run begins; say whether it is this caller's, or was taken before.

        Raises:
            ConflictError: the term of its token is over.
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
        """Record what came of a run; return it as the ledger has it, which is the first word on it.

        Raises:
            ConflictError: the term of the token is over.
        """
        body = {"state": state, "ended_us": now_us, "outputs": outputs or {}, "error": error, "token": token}
        self._write(token, self._path(run.id, _END), body)
        return self.get(run.id)

    def get(self, run_id: RunId) -> Run:
        """Return a run.

        Raises:
            RequestError: there is none.
        """
        try:
            begun = _read(self._path(run_id))
        except FileNotFoundError as error:
            fix = "copy one from `skewless runs list`"
            raise RequestError("run", "is not in the ledger", value=str(run_id), fix=fix) from error
        run = Run(id=run_id, **begun)
        try:
            ended = _read(self._path(run_id, _END))
        except FileNotFoundError:
            return run
        ended.pop("token")
        return replace(run, **ended)

    def ids(self, job: str | None = None) -> list[RunId]:
        """Return the runs of a job, or all, in the order of their ticks; nothing but names is read."""
        return list(self.read_latest_first(job))[::-1]

    def read_latest_first(self, job: str | None = None) -> Iterator[RunId]:
        """Yield the runs of a job, or all, the newest tick first."""
        names = [name for name in self._names(job) if not name.stem.endswith(_END)]
        return (RunId.parse(str(name)) for name in sorted(names, key=_order, reverse=True))

    def open(self) -> list[RunId]:
        """Return the runs without an end, in the order of their ticks."""
        names = set(self._names(None))
        begun = [name for name in names if not name.stem.endswith(_END)]
        left = [name for name in begun if replace(name, stem=name.stem + _END) not in names]
        return [RunId.parse(str(name)) for name in sorted(left, key=_order)]

    def prune(self, before_us: int) -> int:
        """Remove the runs that were due before a moment, but for each job's newest; return how many.

        A job's newest run stays, since it says up to when nothing was missed.
        """
        still = set(self.open())
        removed = 0
        for job in sorted({run_id.job for run_id in self.ids()}):
            for run_id in self.ids(job)[:-1]:
                if run_id.tick_us < before_us and run_id not in still:
                    # An end without its start is never read; the other way round the run would look lost.
                    self._path(run_id).unlink(missing_ok=True)
                    self._path(run_id, _END).unlink(missing_ok=True)
                    removed += 1
        return removed

    def _write(self, token: int, path: Path, body: Mapping[str, Any]) -> bool:
        with hold_lock(self._lock):
            newest = self.newest_token()
            if token < newest:
                raise _over(token, newest)
            return _create(path, body)

    def _names(self, job: str | None) -> Iterator[_Name]:
        for folder in self._folders() if job is None else [RunId(job=job, tick_us=0).folder]:
            try:
                with os.scandir(self._runs / folder) as entries:
                    names = [entry.name for entry in entries]
            except (FileNotFoundError, ValueError):  # a name with a zero byte names no folder
                continue
            for name in names:
                if name[0].isdigit():
                    yield _Name(folder=folder, stem=name.removesuffix(".json"))

    def _folders(self) -> list[str]:
        return [path.name for path in self._runs.iterdir()] if self._runs.is_dir() else []

    def _sweep(self) -> None:
        """Remove what killed writers have left; whoever writes here holds the lock."""
        for folder in (self._terms, *(self._runs / name for name in self._folders())):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)

    def _path(self, run_id: RunId, suffix: str = "") -> Path:
        return self._runs / run_id.folder / f"{run_id.stem}{suffix}.json"


def _order(name: _Name) -> tuple[str, str]:
    """Return what sorts names by tick, then job, then attempt: a broken second comes behind the whole one."""
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
        raise StoreError(f"ledger entry '{path.parent.name}/{path.name}'", "is damaged", fix=fix) from error
    return body


def _over(token: int, newest: int) -> ConflictError:
    return ConflictError(
        f"scheduler with fencing token {token}",
        f"is no longer the holder: token {newest} was given out",
        fix="nothing: the other scheduler goes on",
    )
