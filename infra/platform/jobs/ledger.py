"""The ledger of the scheduler: its leaders, and all runs, in the database.

A tick runs once, because a run is one row. A former leader cannot write: each write compares its fencing token with
that of the latest leader, in the same transaction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

from skewless.contract.errors import ConflictError, RequestError, StoreError
from skewless.infra.platform.jobs.run import Run, RunId, RunSpan, State
from skewless.infra.platform.storage.database import Row, Value
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.infra.platform.storage.project_state import ProjectState

_NAME = "scheduler"
_ALL = 2**31
_PRUNED_AT_ONCE = 1_000  # rows; other writers wait meanwhile
_COLUMNS = "job, tick_us, attempt, start_body, end_body"
# Bodies have sorted keys, so an end begins with its time and its error. The outputs, which can be long, are not read.
_SPAN_COLUMNS = "job, tick_us, attempt, state, start_body, substr(end_body, 1, 700)"
_END = re.compile(r'\{"ended_us": (\d+), "error": (?:null|"((?:[^"\\]|\\.)*))')
_IS_RUN = "job = ? AND tick_us = ? AND attempt = ?"
_OLD = """FROM job_runs WHERE tick_us < ? AND state <> 'running' AND EXISTS (
    SELECT 1 FROM job_runs AS later
    WHERE later.job = job_runs.job AND (later.tick_us, later.attempt) > (job_runs.tick_us, job_runs.attempt))"""
_PRUNE = f"""DELETE FROM job_runs WHERE (job, tick_us, attempt) IN (
    SELECT job, tick_us, attempt {_OLD} LIMIT {_PRUNED_AT_ONCE}) RETURNING attempt"""


class Ledger:
    """The leaders and runs of one project; any process may read them."""

    def __init__(self, state: ProjectState) -> None:
        self._database = state.database
        self._terms = Records(self._database, "leader_term")
        self._known = Documents(self._database, "known_job")

    def latest_token(self) -> int:
        """Return the highest fencing token of all terms, 0 before the first term."""
        return self._terms.latest_number(_NAME)

    def begin_term(self, token: int, holder: str, now_us: int) -> None:
        """Record a new leader; writes of earlier leaders are rejected from now on.

        Raises:
            ConflictError: a term with this token or a later token exists.
        """
        with self._database.transaction():
            if token <= self.latest_token():
                raise _conflict(token, self.latest_token())
            self._terms.append(_NAME, token, {"token": token, "holder": holder, "started_us": now_us})

    def register_job(self, job: str, token: int, now_us: int) -> int:
        """Return the time when a job was first registered, microseconds; register it now if it is new.

        Raises:
            ConflictError: a later term exists.
        """
        body = self._known.get(job)
        if body is None:
            # If another scheduler has registered the job meanwhile, its time counts.
            with self._fence(token), self._known.edit(job, {"since_us": now_us}) as body:
                pass
        return int(body["since_us"])

    def start(self, run: Run) -> bool:
        """Record the start of a run; return False if the tick was already claimed.

        Raises:
            ConflictError: a later term exists.
        """
        body = {"cause": run.cause, "token": run.token, "inputs": run.inputs, "started_us": run.started_us}
        with self._fence(run.token):
            rows = self._database.execute(
                "INSERT INTO job_runs (job, tick_us, attempt, state, start_body) VALUES (?, ?, ?, 'running', ?) "
                "ON CONFLICT DO NOTHING RETURNING attempt",
                *_key(run.id),
                json.dumps(body, sort_keys=True),
            )
        return bool(rows)

    def end(
        self,
        run: Run,
        state: State,
        now_us: int,
        *,
        token: int,
        outputs: Mapping[str, Any] | None = None,
        error: str | None = None,
        log: str = "",
    ) -> Run:
        """Record the end of a run; return the recorded run. The first recorded end counts.

        Raises:
            ConflictError: a later term exists.
        """
        body = {"state": state, "ended_us": now_us, "outputs": outputs or {}, "error": error, "token": token}
        body |= {"log": log} if log else {}
        with self._fence(token):
            self._database.execute(
                f"UPDATE job_runs SET state = ?, end_body = ? WHERE {_IS_RUN} AND state = 'running'",
                state,
                json.dumps(body, sort_keys=True),
                *_key(run.id),
            )
            return self.get(run.id)

    def get(self, run_id: RunId) -> Run:
        """Return a run.

        Raises:
            RequestError: the ledger does not have it.
        """
        rows = self._database.query(f"SELECT {_COLUMNS} FROM job_runs WHERE {_IS_RUN}", *_key(run_id))
        if not rows:
            fix = "copy one from `skewless runs list`"
            raise RequestError("run", "is not in the ledger", value=str(run_id), fix=fix)
        return _decode_run(rows[0])

    def read_latest_first(
        self, job: str | None = None, *, state: str | None = None, limit: int | None = None
    ) -> list[Run]:
        """Return runs in the order of tick, job and attempt, latest first; an index has this order.

        Args:
            job, state: of the runs; None: any.
            limit: the most runs; None: all.
        """
        equal: dict[str, Value] = {"job": job, "state": state}
        return [_decode_run(row) for row in self._select(_COLUMNS, equal, limit=limit)]

    def read_spans(
        self,
        since_us: int,
        until_us: int,
        *,
        job: str | None = None,
        kind: str | None = None,
        state: str | None = None,
        before: RunId | None = None,
        limit: int,
    ) -> list[RunSpan]:
        """Return the runs that were due in a period, without their outputs, as ``read_latest_first``.

        Args:
            since_us, until_us: the period, its end exclusive, microseconds.
            kind: first word of the job's name; None: any.
            before: only runs after this one in the order; None: from the latest one on.
            limit: the most runs.
        """
        equal: dict[str, Value] = {"job": job, "state": state}
        further: dict[str, tuple[Value, ...]] = {"tick_us >= ?": (since_us,), "tick_us < ?": (until_us,)}
        if kind is not None:
            further["(job = ? OR substr(job, 1, ?) = ?)"] = (kind, len(kind) + 1, f"{kind} ")
        if before is not None:
            further["(tick_us, job, attempt) < (?, ?, ?)"] = (before.tick_us, before.job, before.attempt)
        return [_decode_span(row) for row in self._select(_SPAN_COLUMNS, equal, further, limit)]

    def latest_span(self, job: str, state: str | None = None) -> RunSpan | None:
        """Return the latest run of a job, without its outputs; None: there is none."""
        rows = self._select(_SPAN_COLUMNS, {"job": job, "state": state}, limit=1)
        return _decode_span(rows[0]) if rows else None

    def _select(
        self,
        columns: str,
        equal: Mapping[str, Value],
        further: Mapping[str, tuple[Value, ...]] | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        terms: dict[str, tuple[Value, ...]] = {f"{name} = ?": (v,) for name, v in equal.items() if v is not None}
        terms |= further or {}
        where = f"WHERE {' AND '.join(terms)} " if terms else ""
        return self._database.query(
            f"SELECT {columns} FROM job_runs {where}ORDER BY tick_us DESC, job DESC, attempt DESC LIMIT ?",
            *(value for values in terms.values() for value in values),
            _ALL if limit is None else limit,
        )

    def open(self) -> list[Run]:
        """Return the runs without an end, in order of their ticks."""
        return self.read_latest_first(state="running")[::-1]

    def read_attempts(self, run_id: RunId, limit: int) -> list[RunSpan]:
        """Return the attempts of a run's tick, latest first."""
        equal: dict[str, Value] = {"job": run_id.job, "tick_us": run_id.tick_us}
        return [_decode_span(row) for row in self._select(_SPAN_COLUMNS, equal, limit=limit)]

    def read_open(self, limit: int) -> list[RunSpan]:
        """Return runs without an end, the latest first."""
        return [_decode_span(row) for row in self._select(_SPAN_COLUMNS, {"state": "running"}, limit=limit)]

    def latest_ticks(self, job: str, limit: int) -> list[int]:
        """Return the ticks of the latest runs of a job, in order, microseconds."""
        sql = "SELECT tick_us FROM job_runs WHERE job = ? ORDER BY tick_us DESC LIMIT ?"
        return [tick_us for (tick_us,) in self._database.query(sql, job, limit)][::-1]

    def latest_attempt(self, job: str, tick_us: int) -> int:
        """Return the highest attempt of a tick, 0 if it has no run."""
        sql = "SELECT max(attempt) FROM job_runs WHERE job = ? AND tick_us = ?"
        rows = self._database.query(sql, job, tick_us)
        return int(rows[0][0] or 0) if rows else 0

    def prune(self, before_us: int, *, dry_run: bool = False) -> int:
        """Delete the runs that were due before a time, except each job's latest run; return their number.

        The latest run stays, because it shows up to which tick no run was missed.
        """
        removed = 0
        if dry_run and self._database.exists():
            return int(self._database.query(f"SELECT count(*) {_OLD}", before_us)[0][0])
        while not dry_run and self._database.exists() and (rows := self._database.execute(_PRUNE, before_us)):
            removed += len(rows)
        return removed

    @contextmanager
    def _fence(self, token: int) -> Iterator[None]:
        """Execute a write, unless a later term has begun."""
        with self._database.transaction():
            latest = self.latest_token()
            if token < latest:
                raise _conflict(token, latest)
            yield


def _key(run_id: RunId) -> tuple[Value, ...]:
    return run_id.job, run_id.tick_us, run_id.attempt


def _decode_run(row: Row) -> Run:
    job, tick_us, attempt, start_body, end_body = row
    run_id = RunId(job=job, tick_us=tick_us, attempt=attempt)
    try:
        start = json.loads(start_body)
        return Run(id=run_id, **{**start, **json.loads(end_body or "{}"), "token": start["token"]})
    except (ValueError, TypeError, KeyError) as error:
        raise _corrupt(run_id) from error


def _decode_span(row: Row) -> RunSpan:
    job, tick_us, attempt, state, start_body, end = row
    run_id = RunId(job=job, tick_us=tick_us, attempt=attempt)
    match = _END.match(end or "")
    try:
        start = json.loads(start_body)
        return RunSpan(
            id=run_id,
            state=state,
            cause=str(start["cause"]),
            started_us=int(start["started_us"]),
            ended_us=int(match[1]) if match else None,
            error=_decode_error(match[2]) if match and match[2] else None,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise _corrupt(run_id) from error


def _decode_error(text: str) -> str:
    """Return the text of a JSON string whose end may be missing."""
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:  # cut within an escape
        return text


def _corrupt(run_id: RunId) -> StoreError:
    return StoreError(f"run '{run_id}'", "is corrupt in the database", fix="restore it from a backup")


def _conflict(token: int, latest: int) -> ConflictError:
    return ConflictError(
        f"scheduler with fencing token {token}",
        f"has lost the lease to the scheduler with token {latest}",
        fix="do nothing: the other scheduler continues",
    )


Kind = Literal["start", "cancel"]
_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to start or cancel a run.

    Args:
        kind: ``start`` the run, or ``cancel`` it.
        cause: the reason, as text.
    """

    kind: Kind
    run_id: RunId
    cause: str

    @property
    def name(self) -> str:
        """Return the kind and the run, as ``start/drift:fraud@19700101T000001Z``."""
        return f"{self.kind}/{self.run_id}"


class Requests:
    """The open requests of one project.

    A request is removed after it was handled. Handling it twice is harmless, because a run starts and ends once.
    """

    def __init__(self, state: ProjectState) -> None:
        self._documents = Documents(state.database, "run_request")

    def put(self, request: Request) -> None:
        """Store a request.

        Raises:
            ConflictError: the same request is open.
            StoreError: the database is unavailable.
        """
        if not self._documents.create(request.name, {"cause": request.cause}):
            thing = f"run {str(request.run_id)!r}"
            raise ConflictError(thing, f"already has a request to {request.kind}", fix="wait for it")

    def open(self) -> list[Request]:
        """Return the open requests, oldest tick first."""
        requests = []
        for name, body in self._documents.list_all().items():
            kind, _, run_id = name.partition("/")
            requests.append(Request(kind=_KINDS[kind], run_id=RunId.parse(run_id), cause=body["cause"]))
        return sorted(requests, key=lambda request: (request.run_id.tick_us, request.run_id.job))

    def remove(self, request: Request) -> None:
        """Delete a request, after it was handled."""
        self._documents.delete(request.name)
