"""After the test period: a round of the scheduler, parity, replay, and the next steps."""

from __future__ import annotations

import os
import time

from skewless.client import Client
from skewless.demo.hours import RACE_ROWS
from skewless.demo.processes import run_command
from skewless.demo.tour_state import START_SECONDS, STATE, PrintLine, TourState
from skewless.operations.readable import duration_text
from skewless.training.scheduling.job import list_jobs

_ROUND = ("materialize", "validate", "retrain")
_NOWHERE = "redis://127.0.0.1:1"


def retrain(tour: TourState, client: Client) -> None:
    """Run the scheduled jobs once, and wait until the running server has loaded the new versions."""
    with tour.stage("Scheduler round: materialize, validate, retrain, promote") as print_line:
        before = {model.name: model.version for model in client.models()}
        _run_jobs(tour, print_line)
        after = _wait_for_versions(tour, client)
        for model, version in after.items():
            change = f"went from {before.get(model, 'nothing')} to" if version != before.get(model) else "stays at"
            rows = tour.asked.get(model, [])[-RACE_ROWS:]
            reply = client.predict(rows, model=model) if rows else None
            answer = f"; {reply.version} answered {len(rows)} rows" if reply else ""
            print_line(f"{model}: the running server {change} {version}{answer}")
        tour.facts["versions"] = after


def _run_jobs(tour: TourState, print_line: PrintLine) -> None:
    """Run the jobs of the project; a model without a schedule or trigger has no retraining job."""
    planned = list_jobs(tour.project.settings, tour.project.models, lambda _model: False)
    kinds = {job.name.partition(" ")[0] for job in planned}
    options = [word for kind in _ROUND if kind in kinds for word in ("--only", kind)]
    retrained = {job.name.removeprefix("retrain ") for job in planned if job.name.startswith("retrain ")}
    for spec in tour.project.models:
        if spec.name not in retrained:
            print_line(f"{spec.name}: has no schedule and no trigger, so it is not retrained")
    for job in run_command(tour, "scheduler", *options, field="jobs")["jobs"] if options else ():
        models = [model["reason"] for model in job["outputs"].get("models", ()) if "reason" in model]
        reason = job["error"] or "; ".join(models) or f"run {job['id']} in the ledger"
        print_line(f"{job['job']}: {job['state']} in {duration_text(job['seconds'])}; {reason}")


def compare_store(tour: TourState) -> None:
    """Compare the online store with the log."""
    with tour.stage("Parity: the online store and the accepted log") as print_line:
        report = run_command(tour, "parity", field="compared")
        views = ", ".join(report["views"])
        print_line(f"{report['compared']:,} entities compared in {views}: {report['mismatches']} differ in a bit")
        tour.facts["parity_mismatches"] = report["mismatches"]


def replay(tour: TourState) -> None:
    """Recompute all predictions in another process, without Redis."""
    with tour.stage("Replay in another process, without Redis") as print_line:
        report = run_command(tour, "replay", field="lines", SKEWLESS_REDIS_URL=_NOWHERE)
        for line in report["lines"]:
            print_line(line)
        tour.facts |= {
            "replayed": report["compared"],
            "different_bits": report["different"],
            "status": report["status"],
        }
        tour.facts |= {"inside_run": report["inside_run"], "changing": report["changing"]}


def print_next_steps(tour: TourState) -> None:
    """Print commands to run next."""
    line = f"SKEWLESS_STATE={STATE} skewless {{}} --repo {os.path.relpath(tour.project.repo)}"
    tour.console.print("[bold]Next steps[/bold]")
    for command in ("status", "replay", "plan"):
        tour.console.print(f"  {line.format(command)}", highlight=False)
    tour.console.print(
        "  docs/first-project.md: a project on your own data, from `skewless init my-project`", highlight=False
    )


def _wait_for_versions(tour: TourState, client: Client) -> dict[str, str]:
    aliases = tour.project.store.aliases
    champions = {spec.name: aliases.get(spec.name, "champion") for spec in tour.project.models}
    versions = {name: version for name, version in champions.items() if version is not None}
    deadline = time.monotonic() + START_SECONDS
    while True:
        served = {model.name: model.version for model in client.models()}
        if served == versions or time.monotonic() > deadline:
            return served
        time.sleep(0.05)
