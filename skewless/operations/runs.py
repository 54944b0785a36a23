"""The scheduler's runs: a project's ledger, and what may be asked of its scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from skewless.contract.errors import ConflictError

if TYPE_CHECKING:
    from skewless.infra.jobs.requests import Kind
    from skewless.infra.jobs.run import Run, RunId
    from skewless.workspace import Workspace

BY_HAND = "asked for by hand"


@dataclass(frozen=True)
class Runs:
    """The runs of a project's scheduler: ``skewless runs``."""

    project: Workspace

    def list(self, job: str | None = None, *, limit: int = 50, state: str | None = None) -> Sequence[Run]:
        """Return the newest runs of a job or of all, the newest last."""
        from skewless.infra.jobs.ledger import Ledger

        ledger = Ledger(self.project.state)
        runs = (ledger.get(run_id) for run_id in ledger.read_latest_first(job))
        return [*islice((run for run in runs if state in {None, run.state}), limit)][::-1]

    def show(self, run_id: str) -> Run:
        """Return a run.

        Raises:
            RequestError: there is none of that name.
        """
        from skewless.infra.jobs.ledger import Ledger
        from skewless.infra.jobs.run import RunId

        return Ledger(self.project.state).get(RunId.parse(run_id))

    def start(self, job: str, *, cause: str = BY_HAND, dry_run: bool = False) -> RunId:
        """Ask for a run of a job now; return what it will be called.

        Raises:
            RequestError: the project has no such job.
            ConflictError: it was asked for at the same microsecond.
        """
        from skewless.infra.jobs.run import RunId
        from skewless.operations.scheduler import PlannedJobs
        from skewless.training.scheduling.job import find_job

        found = find_job(PlannedJobs(project=self.project)(), job)
        asked = RunId(job=found.name, tick_us=self.project.clock.now_us())
        return self._ask("start", asked, cause, dry_run=dry_run)

    def retry(self, run_id: str, *, dry_run: bool = False) -> RunId:
        """Ask for the next attempt of a run; return what it will be called.

        Raises:
            ConflictError: the run is under way, or was asked for already.
            RequestError: there is none of that name.
        """
        from skewless.infra.jobs.ledger import Ledger

        run = self.show(run_id)
        if run.state == "running":
            raise ConflictError(f"run {run_id!r}", "is under way", fix="wait for it, or cancel it first")
        tick = (run.id.job, run.id.tick_us)
        others = [each for each in Ledger(self.project.state).ids(run.id.job) if (each.job, each.tick_us) == tick]
        asked = replace(run.id, attempt=max(each.attempt for each in others) + 1)
        return self._ask("start", asked, f"retry of {run.id}, {BY_HAND}", dry_run=dry_run)

    def cancel(self, run_id: str, *, dry_run: bool = False) -> RunId:
        """Ask for the end of a run.

        Raises:
            ConflictError: it has ended.
            RequestError: there is none of that name.
        """
        run = self.show(run_id)
        if run.state != "running":
            raise ConflictError(
                f"run {run_id!r}", f"has ended: {run.state}", fix="look at it with `skewless runs show`"
            )
        return self._ask("cancel", run.id, "cancelled by hand", dry_run=dry_run)

    def retrain(self, model: str, cause: str) -> RunId:
        """Ask for a retraining of a model on cause; return what the run will be called.

        Raises:
            ConflictError: it was asked for at the same microsecond.
        """
        from skewless.infra.jobs.run import RunId

        asked = RunId(job=f"retrain {model}", tick_us=self.project.clock.now_us())
        return self._ask("start", asked, f"trigger: {cause}", dry_run=False)

    def _ask(self, kind: Kind, run_id: RunId, cause: str, *, dry_run: bool) -> RunId:
        from skewless.infra.jobs.requests import Request, Requests

        if not dry_run:
            Requests(self.project.state).put(Request(kind=kind, run_id=run_id, cause=cause))
        return run_id
