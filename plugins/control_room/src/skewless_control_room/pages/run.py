"""One run of the scheduler, and what can be done with runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skewless.contract.errors import ScopeError
from skewless.contract.plain_record import PlainRecord
from skewless.infra.platform.jobs.ledger import Ledger, Requests
from skewless.infra.platform.jobs.run import RunId
from skewless.infra.platform.storage.leases import Leases
from skewless.project import Project
from skewless.training.scheduling.job import find_job
from skewless_control_room.actions import Action, Values
from skewless_control_room.database_state import ask_database
from skewless_control_room.page import Page, Part, Query, read_part
from skewless_control_room.pages.jobs import RunRow, may_see, planned_jobs

_MOST_OPEN = 50
_MOST_BODY = 20_000  # characters of inputs or outputs


@dataclass(frozen=True, kw_only=True)
class OneRun(PlainRecord):
    """The page of a run.

    Args:
        command: what it ran, on the command line.
        token: fencing token of the scheduler that started it.
        inputs, outputs: JSON as text, shortened.
        log: the last log lines of its command.
        attempts: of the same tick, latest first; this run is one of them.
        requested: requests about the run that its scheduler has not handled yet.
        model: that it works on; empty: none.
    """

    at_us: int
    run: RunRow
    attempt: int
    token: int
    error: str | None
    command: str
    inputs: str
    outputs: str
    log: str
    attempts: Part[Sequence[RunRow]]
    requested: Part[Sequence[str]]
    model: str


def read_run(project: Project, query: Query) -> OneRun:
    """Return a run.

    Raises:
        RequestError: the ledger has no such run.
        ScopeError: it is of a model that the reader may not see.
        StoreError: the database is unavailable.
    """
    run_id = RunId.parse(query.path["run"])
    if not may_see(query, run_id.job):
        raise ScopeError(f"run {str(run_id)!r}", "is of a model that you may not see", fix="ask for its scope")
    ask_database(project)  # the wait for a database that is down is short
    ledger = Ledger(project.state)
    run = ledger.get(run_id)
    words = run.inputs.get("words")
    return OneRun(
        at_us=project.clock.now_us(),
        run=RunRow.of(run),
        attempt=run.id.attempt,
        token=run.token,
        error=run.error,
        command=" ".join(["skewless", *(shlex.quote(str(word)) for word in words)]) if isinstance(words, list) else "",
        inputs=_body(run.inputs),
        outputs=_body(run.outputs),
        log=run.log,
        attempts=read_part(lambda: [RunRow.of(item) for item in ledger.read_attempts(run.id, _MOST_OPEN)]),
        requested=read_part(
            lambda: [item.kind for item in Requests(project.state).open() if item.run_id == run.id][:_MOST_OPEN]
        ),
        model=run.id.job.partition(" ")[2],
    )


def _body(values: Mapping[str, object]) -> str:
    text = json.dumps(values, indent=2) if values else ""
    return text if len(text) <= _MOST_BODY else f"{text[:_MOST_BODY]}\n… and {len(text) - _MOST_BODY:,} characters more"


def _who_starts(project: Project) -> str:
    leader = Leases(project.state.database).read_holder("scheduler")
    if leader is None:
        return "No scheduler leads now: it starts when `skewless scheduler` runs."
    return "The scheduler starts it within seconds, or when the runs of its queue have ended."


def _preview_start(project: Project, values: Values) -> list[str]:
    job = find_job(planned_jobs(project), values["job"])
    return [f"Job {job.name} runs now: {' '.join(['skewless', *job.words])}.", _who_starts(project)]


def _start(project: Project, values: Values) -> str:
    run_id = project.runs.start(values["job"], cause=values.get("cause") or "from the control room")
    return f"Run {run_id} is requested."


def _preview_retry(project: Project, values: Values) -> list[str]:
    run_id = project.runs.retry(values["run"], dry_run=True)
    return [f"Run {values['run']} is tried again, as {run_id}.", _who_starts(project)]


def _retry(project: Project, values: Values) -> str:
    return f"Run {project.runs.retry(values['run'])} is requested."


def _preview_cancel(project: Project, values: Values) -> list[str]:
    run_id = project.runs.cancel(values["run"], dry_run=True)
    return [
        f"Run {run_id} gets SIGTERM, and SIGKILL 10 seconds later, with all processes that it has started.",
        "It is recorded as cancelled.",
    ]


def _cancel(project: Project, values: Values) -> str:
    return f"The end of run {project.runs.cancel(values['run'])} is requested."


PAGE = Page(path="/runs/{run}", question="How did run {run} go?", template="run.html", read=read_run, live_s=3)
ACTIONS = (
    Action(
        name="run-now",
        title="Run now",
        right="operate",
        fields=("job",),
        preview=_preview_start,
        run=_start,
        command="skewless runs start '{job}' --cause '{cause}'",
        ask={"cause": "Why (it is in the ledger)"},
    ),
    Action(
        name="retry-run",
        title="Retry",
        right="operate",
        fields=("run",),
        preview=_preview_retry,
        run=_retry,
        command="skewless runs retry {run}",
    ),
    Action(
        name="cancel-run",
        title="Cancel",
        right="operate",
        fields=("run",),
        preview=_preview_cancel,
        run=_cancel,
        command="skewless runs cancel {run}",
    ),
)
