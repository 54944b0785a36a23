"""After the test period: a scheduler round, parity of the online store, replay, and where to look next."""

from __future__ import annotations

import os
import time

from skewless.client import Client
from skewless.demo.hours import RACE_ROWS
from skewless.demo.processes import run_once
from skewless.demo.tour_state import START_SECONDS, STATE, Say, TourState
from skewless.infra.packages.aliases import Aliases
from skewless.training.scheduling.job import list_jobs

_ROUND = ("materialize", "validate", "retrain")
_NOWHERE = "redis://127.0.0.1:1"


def retrain(walk: TourState, client: Client) -> None:
    """Let the scheduler do its jobs once, and watch the running server take the new versions up."""
    with walk.stage("Scheduler round: materialise, validate, retrain, promote") as say:
        before = {model.name: model.version for model in client.models()}
        _round(walk, say)
        after = _wait_for_versions(walk, client)
        for model, version in after.items():
            moved = f"went from {before.get(model, 'nothing')} to" if version != before.get(model) else "stays with"
            rows = walk.asked.get(model, [])[-RACE_ROWS:]
            reply = client.predict(rows, model=model) if rows else None
            answered = f"; it answered {len(rows)} rows with {reply.version}" if reply else ""
            say(f"{model}: the running server {moved} {version}{answered}")
        walk.facts["versions"] = after


def _round(walk: TourState, say: Say) -> None:
    """Run the jobs that the project has; a model without a schedule or trigger has none of its own."""
    planned = list_jobs(walk.project.settings, walk.project.models, lambda _model: False)
    kinds = {job.name.partition(" ")[0] for job in planned}
    chosen = [word for kind in _ROUND if kind in kinds for word in ("--only", kind)]
    retrained = {job.name.removeprefix("retrain ") for job in planned if job.name.startswith("retrain ")}
    for spec in walk.project.models:
        if spec.name not in retrained:
            say(f"{spec.name}: no retrain line and no trigger, so it is not retrained")
    for job in run_once(walk, "scheduler", *chosen, wanted="jobs")["jobs"] if chosen else ():
        models = [model["reason"] for model in job["outputs"].get("models", ()) if "reason" in model]
        reason = job["error"] or "; ".join(models) or f"run {job['id']} in the ledger"
        say(f"{job['job']}: {job['state']} in {job['seconds']:.1f} s; {reason}")


def compare_store(walk: TourState) -> None:
    """Hold the online store against the log."""
    with walk.stage("Parity: the online store against the accepted log") as say:
        report = run_once(walk, "parity", wanted="compared")
        views = ", ".join(report["views"])
        say(f"{report['compared']:,} entities compared in {views}: {report['mismatches']} differ in a bit")
        walk.facts["parity_mismatches"] = report["mismatches"]


def replay(walk: TourState) -> None:
    """Prove every prediction in another process that has no Redis."""
    with walk.stage("Replay, in another process, without Redis") as say:
        report = run_once(walk, "replay", wanted="lines", SKEWLESS_REDIS_URL=_NOWHERE)
        for line in report["lines"]:
            say(line)
        walk.facts |= {
            "replayed": report["compared"],
            "different_bits": report["different"],
            "status": report["status"],
        }
        walk.facts |= {"inside_run": report["inside_run"], "changing": report["changing"]}


def where_next(walk: TourState) -> None:
    """Say what to type now."""
    where = f"SKEWLESS_STATE={STATE} skewless {{}} --repo {os.path.relpath(walk.project.repo)}"
    walk.console.print("[bold]Where to look next[/bold]")
    for verb in ("status", "replay", "plan"):
        walk.console.print(f"  {where.format(verb)}", highlight=False)
    walk.console.print("  docs/first-project.md: your own data, from `skewless init my-project`", highlight=False)


def _wait_for_versions(walk: TourState, client: Client) -> dict[str, str]:
    aliases = Aliases(walk.project.packages)
    champions = {spec.name: aliases.get(spec.name, "champion") for spec in walk.project.models}
    wanted = {name: version for name, version in champions.items() if version is not None}
    deadline = time.monotonic() + START_SECONDS
    while True:
        served = {model.name: model.version for model in client.models()}
        if served == wanted or time.monotonic() > deadline:
            return served
        time.sleep(0.05)
