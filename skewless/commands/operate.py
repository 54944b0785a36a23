"""Commands on a project as a whole: ``status``, ``doctor``, ``scheduler``, ``runs`` and others."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skewless.commands.cells import StateCell, Tone
from skewless.commands.command import UNCHANGED, DryRun, argument, command, option, time_option
from skewless.commands.output import Part, Session, facts_table, records_table
from skewless.contract.errors import StoreError
from skewless.contract.readable import duration_text, time_text
from skewless.operations import BY_HAND

if TYPE_CHECKING:
    from skewless.infra.platform.jobs.run import Run, RunId
    from skewless.operations.health.finding import CheckFinding
    from skewless.operations.health.status import PlanStatus, ProjectStatus
    from skewless.operations.jobs.scheduler import Invoke

Once = Annotated[bool, option("--once", "Run each job once, now, then stop.")]
Only = Annotated[list[str] | None, option("--only JOB", "With --once: this job, or all jobs of this kind.")]
Until = Annotated[str | None, option("--until TIME", "Move the project's clock from job to job until this time.")]
Deep = Annotated[bool, option("--deep", "Also try peers, rights and a prediction of each model.")]
_TABLES = {
    "views": "views",
    "left_out": "rows skipped by the online store",
    "windows": "windowed views",
    "unneeded": "unused views",
    "sources": "event sources",
    "decisions": "decision streams",
    "sinks": "sinks",
    "processes": "processes",
    "models": "models",
}
_TONES: dict[str, Tone] = {"ok": "good", "warn": "warning", "fail": "bad"}
_EXIT_CODES = {"refused": 5}
_MEANINGS = {
    "runs": "runs deleted from the ledger",
    "predictions": "segments of the prediction log expired",
    "quarantine": "quarantined batches deleted",
    "merged": "segments of logs merged",
    "deleted": "unused objects deleted",
    "retired": "unused view versions and former states deleted from the online store",
}


@command("Show the state of the project.", "--repo my-project", "--json", is_short=True)
def status(session: Session) -> None:
    """Show the state of the project: plan, views, event sources, processes, models and the prediction log."""
    report = session.project.status()
    session.show(report.as_dict(), *_status_parts(report))
    if report.database is not None or report.log_problems:
        raise typer.Exit(StoreError.exit_code)


def _status_parts(report: ProjectStatus) -> Iterator[Part]:
    online, logged = report.online, report.predictions
    spooled = f"{report.unshipped:,} in the spool of this machine"
    yield facts_table(
        f"project in {report.repo}",
        [
            *_plan_facts(report.plan, report.database),
            ("online store", online.url if online.reachable else f"not reachable: {online.reason}"),
            ("server", _server_text(report.server)),
            ("predictions", spooled if logged is None else f"{logged:,} logged"),
            *(("problem", text) for text in report.log_problems),
        ],
    )
    for name, title in _TABLES.items():
        if records := getattr(report, name):
            yield records_table(title, records)


def _plan_facts(plan: PlanStatus | None, database: str | None) -> list[tuple[str, str]]:
    if database is not None:
        return [("database", f"{database}; plan, views, processes and models are unknown")]
    text = f"{plan.hash}, applied {time_text(plan.applied_at)}" if plan else "none: run `skewless apply`"
    return [("plan", text), ("definitions", plan.state if plan else "-")]


def _server_text(server: dict[str, Any] | None) -> str:
    if server is None:
        return "not running"
    problems = "".join(f"; {thing} {problem}" for thing, problem in server["problems"].items())
    return f"{server['url']} (pid {server['pid']}){problems}"


@command(
    "Check the machine and the project, and suggest fixes.",
    "",
    "--deep --repo my-project",
    "--repo my-project --json",
    is_short=True,
)
def doctor(session: Session, *, deep: Deep = False) -> None:
    """Check the machine and the project, and suggest fixes; exit with code 1 if something must be fixed.

    The checks cover Python, packages, GPU, Redis, disk, memory, the port, the plan and the models.
    """
    from skewless.project import Project

    findings = Project.doctor(session.repo, deep=deep)
    ok = all(finding.verdict != "fail" for finding in findings)
    body = {"ok": ok, "checks": [finding.as_dict() for finding in findings]}
    session.show(body, *(part for finding in findings for part in _finding_parts(finding)))
    if not ok:
        raise typer.Exit(1)


def _finding_parts(finding: CheckFinding) -> list[Part]:
    tone = _TONES[finding.verdict]
    line = StateCell(f"{finding.verdict:<5}", tone, f"{finding.name}: {finding.detail}")
    return [line, f"     fix: {finding.fix}"] if finding.fix else [line]


@command("Run the scheduled jobs.", "--repo my-project", "--once", "--only retrain", log_level="info")
def scheduler(
    session: Session, context: typer.Context, *, once: Once = False, only: Only = None, until: Until = None
) -> None:
    """Run the jobs of the project when their cron lines in settings and models are due, until SIGTERM or Ctrl-C."""
    runs = session.project.scheduler(
        once=once,
        only=only or (),
        until_us=None if until is None else time_option("--until", until),
        invoke=invoke_in_process(context.find_root().command),
    )
    failures = [run for run in runs if run.state != "done"] if until is None else []
    body = {"jobs": [run.as_dict() | {"ok": run.state == "done"} for run in runs]}
    session.show(body | _first_error(failures), *(map(_run_line, runs) if runs else ["scheduler: stopped"]))
    if failures:
        raise typer.Exit(_exit_code(failures[0]))


def invoke_in_process(command: Any) -> Invoke:  # noqa: ANN401 - click's group, which typer hides
    """Return a function that runs a command line in this process; it returns the exit code and the text of stdout."""

    def invoke(words: Sequence[str]) -> tuple[int, str]:
        stdout = io.StringIO()
        with contextlib.redirect_stdout(stdout):
            # Otherwise click would end this process.
            code = command.main(args=list(words), prog_name="skewless", standalone_mode=False)
        return code or 0, stdout.getvalue()

    return invoke


def _run_line(run: Run) -> StateCell:
    detail = f" in {duration_text(run.seconds or 0)}" + ("" if run.error is None else f"; {run.error}")
    tone = StateCell(run.state).known_tone
    return StateCell(f"{run.id.job}: {run.state}", tone, detail)


def _first_error(runs: Sequence[Run]) -> dict[str, Any]:
    errors = [run.outputs["error"] for run in runs if "error" in run.outputs]
    return {"error": errors[0]} if errors else {}


def _exit_code(run: Run) -> int:
    error = run.outputs.get("error")
    code = error.get("exit_code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else _EXIT_CODES.get(run.state, 1)


@command("Compact logs and delete what is past its retention.", "--repo my-project", "--dry-run --json")
def housekeeping(session: Session, *, dry_run: DryRun = False) -> None:
    """Compact logs, and delete what is older than the keep_ settings allow."""
    with session.working("compacting logs") as project:
        body = project.housekeeping(dry_run=dry_run).as_dict()
    table = facts_table("housekeeping", [(meaning, body[name]) for name, meaning in _MEANINGS.items()])
    session.show(body, table, *([UNCHANGED] if dry_run else []))


RunName = Annotated[str, argument("ID", "Id of a run, as `skewless runs list` shows it.")]
JobName = Annotated[str, argument("JOB", "Name of a job, for example 'retrain fraud'.")]
JobFilter = Annotated[str | None, argument("JOB", "Name of a job; default: all jobs.")]
MostRuns = Annotated[int, option("--limit N", "Most runs to list, the latest.", min=1)]
StateName = Annotated[str | None, option("--state STATE", "List only runs in this state, for example failed.")]
Cause = Annotated[str, option("--cause TEXT", "Cause, stored in the ledger.")]


@command("List scheduled runs.", "'retrain fraud' --json", name="runs list")
def list_runs(session: Session, job: JobFilter = None, *, limit: MostRuns = 50, state: StateName = None) -> None:
    """List the runs of one job or of all jobs, the latest last."""
    runs = session.project.runs.list(job, limit=limit, state=state)
    bodies = [run.as_dict() for run in runs]
    part = records_table("runs", bodies, ("id", "state", "started_us", "seconds", "cause", "error"))
    session.show({"runs": bodies}, part if runs else "no runs")


@command("Show one run.", "retrain:fraud@20260115T040000Z", name="runs show")
def show_run(session: Session, run_id: RunName) -> None:
    """Show one run: state, cause, inputs, outputs, times and error."""
    body = session.project.runs.show(run_id).as_dict()
    session.show(body, facts_table(str(body["id"]), list(body.items())))


@command("Request a run of a job.", "'retrain fraud' --cause 'new prices'", name="runs start")
def start_run(session: Session, job: JobName, *, cause: Cause = BY_HAND, dry_run: DryRun = False) -> None:
    """Request a run of a job now; it starts when earlier runs of its kind have ended."""
    _show_request(session, session.project.runs.start(job, cause=cause, dry_run=dry_run), "requested", dry_run=dry_run)


@command("Request another attempt of a run.", "materialize@20260115T120000Z", name="runs retry")
def retry_run(session: Session, run_id: RunName, *, dry_run: DryRun = False) -> None:
    """Request another attempt of a run; exit with code 9 while the run is in progress."""
    _show_request(session, session.project.runs.retry(run_id, dry_run=dry_run), "requested", dry_run=dry_run)


@command("Cancel a run that is in progress.", "retrain:fraud@20260115T040000Z", name="runs cancel")
def cancel_run(session: Session, run_id: RunName, *, dry_run: DryRun = False) -> None:
    """Request that the scheduler ends a run in progress; exit with code 9 if the run has ended."""
    _show_request(session, session.project.runs.cancel(run_id, dry_run=dry_run), "cancelled", dry_run=dry_run)


def _show_request(session: Session, run: RunId, result: str, *, dry_run: bool) -> None:
    text = f"would be {result}; {UNCHANGED}" if dry_run else f"is {result}"
    session.show({"dry_run": dry_run, "run": str(run)}, f"{run} {text}")
