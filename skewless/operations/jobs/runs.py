"""The runs of the scheduler: the ledger of a project, and requests to its scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from skewless.contract.errors import ConflictError
from skewless.infra.platform.jobs.ledger import Kind, Ledger, Request, Requests
from skewless.infra.platform.jobs.run import Run, RunId
from skewless.operations import BY_HAND
from skewless.operations.audited import audited
from skewless.workspace import Workspace


@dataclass(frozen=True)
class Runs:
    """The runs of a project's scheduler: ``skewless runs``."""

    project: Workspace

    def list(self, job: str | None = None, *, limit: int = 50, state: str | None = None) -> Sequence[Run]:
        """Return the latest runs of one job or of all jobs, the latest last."""
        return Ledger(self.project.state).read_latest_first(job, state=state, limit=limit)[::-1]

    def show(self, run_id: str) -> Run:
        """Return a run.

        Raises:
            RequestError: the ledger has no such run.
        """
        return Ledger(self.project.state).get(RunId.parse(run_id))

    @audited("runs.start", tell=lambda run_id: {"run": str(run_id)})
    def start(self, job: str, *, cause: str = BY_HAND, dry_run: bool = False) -> RunId:
        """Request a run of a job now; return its id.

        Raises:
            RequestError: the project has no such job.
            ConflictError: the same run was requested at the same microsecond.
        """
        from skewless.operations.jobs.scheduler import PlannedJobs
        from skewless.training.scheduling.job import find_job

        planned = find_job(PlannedJobs(project=self.project)(), job)
        run_id = RunId(job=planned.name, tick_us=self.project.clock.now_us())
        return self._request("start", run_id, cause, dry_run=dry_run)

    @audited("runs.retry", tell=lambda run_id: {"run": str(run_id)})
    def retry(self, run_id: str, *, dry_run: bool = False) -> RunId:
        """Request the next attempt of a run; return its id.

        Raises:
            ConflictError: the run is in progress, or the attempt was already requested.
            RequestError: the ledger has no such run.
        """
        run = self.show(run_id)
        if run.state == "running":
            raise ConflictError(f"run {run_id!r}", "is in progress", fix="wait until it ends, or cancel it first")
        attempt = Ledger(self.project.state).latest_attempt(run.id.job, run.id.tick_us)
        next_id = replace(run.id, attempt=attempt + 1)
        return self._request("start", next_id, f"retry of {run.id}, {BY_HAND}", dry_run=dry_run)

    @audited("runs.cancel", tell=lambda run_id: {"run": str(run_id)})
    def cancel(self, run_id: str, *, dry_run: bool = False) -> RunId:
        """Request the end of a run.

        Raises:
            ConflictError: the run has ended.
            RequestError: the ledger has no such run.
        """
        run = self.show(run_id)
        if run.state != "running":
            raise ConflictError(
                f"run {run_id!r}", f"has ended: {run.state}", fix="read its result with `skewless runs show`"
            )
        return self._request("cancel", run.id, "cancelled by hand", dry_run=dry_run)

    def retrain(self, model: str, cause: str) -> RunId:
        """Request a retraining of a model; return the id of the run.

        Raises:
            ConflictError: the same run was requested at the same microsecond.
        """
        run_id = RunId(job=f"retrain {model}", tick_us=self.project.clock.now_us())
        return self._request("start", run_id, f"trigger: {cause}", dry_run=False)

    def _request(self, kind: Kind, run_id: RunId, cause: str, *, dry_run: bool) -> RunId:
        if not dry_run:
            Requests(self.project.state).put(Request(kind=kind, run_id=run_id, cause=cause))
        return run_id
