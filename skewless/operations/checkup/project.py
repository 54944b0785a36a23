"""The project: its plan and its processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from skewless.contract.errors import SkewlessError
from skewless.infra.host.processes import Process, read_processes
from skewless.infra.plans.applied_plan import read_applied
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.checkup.finding import CheckupFinding, bad, doubt, from_error, good
from skewless.operations.readable import duration_text
from skewless.operations.server_status import read_server_problems
from skewless.operations.status import plan_state
from skewless.workspace import CONFIG_FILE

_COMMANDS = {"server": "serve", "stream": "stream", "scheduler": "scheduler"}
_PLAN_DELAY_S = 30.0


def check_plan(repo: Path, state: ProjectState) -> CheckupFinding:
    """Return whether a plan is applied, and whether the definitions have changed since."""
    name = "plan"
    if not (repo / CONFIG_FILE).is_file():
        return doubt(
            name, f"{repo} is not a project", "name a project with --repo DIR, or start one with `skewless init DIR`"
        )
    try:
        applied = read_applied(state)
    except SkewlessError as error:
        return from_error(name, error)
    if applied is None:
        return doubt(name, "no plan is applied yet", "run `skewless apply`")
    state_text = plan_state(repo, state, applied)
    detail = f"{applied.plan.hash}, {state_text}"
    if state_text.startswith("registry"):
        return bad(name, detail, "run `skewless plan` to see the difference, then `skewless apply`")
    if state_text.startswith("changed"):
        return doubt(name, detail, "run `skewless plan`, then `skewless apply`")
    return good(name, detail)


def check_processes(state: ProjectState) -> list[CheckupFinding]:
    """Return for each process whether it sends heartbeats, has loaded the applied plan, and works."""
    try:
        applied, processes, now_s = read_applied(state), read_processes(state), state.database.now_us() / 1e6
    except SkewlessError:
        return []  # the check of the plan reports it
    plan_hash = "" if applied is None else applied.plan.hash
    findings = [_judge_process(item, plan_hash, now_s) for item in processes]
    running = any(item.kind == "stream" and not item.is_silent(now_s) for item in processes)
    if applied is not None and applied.plan.sources and not running:
        findings.append(
            doubt("stream worker", "is not running: window features do not change", "start `skewless stream`")
        )
    return findings


def check_server(url: str) -> list[CheckupFinding]:
    """Return the problems that the server of this machine says itself, also while the database is down."""
    problems = read_server_problems(url)
    if not problems:
        return []
    return [doubt("server", "; ".join(f"{thing} {problem}" for thing, problem in problems.items()), "read its log")]


def _judge_process(item: Process, plan_hash: str, now_s: float) -> CheckupFinding:
    name = f"{item.kind} {item.host} {item.pid}"
    if item.is_silent(now_s):
        silent = f"sent no heartbeat for {duration_text(item.silent_s(now_s))}: it is dead or stuck"
        return doubt(name, silent, f"end the process, then start `skewless {_COMMANDS[item.kind]}` again")
    if item.plan != plan_hash and time.time() - item.started_s > _PLAN_DELAY_S:
        return doubt(
            name,
            f"has loaded plan {item.plan or 'none'}, not the applied plan {plan_hash}",
            "read its log: event plan_not_loaded has the reason",
        )
    problems = list(_problems(item))
    if problems:
        return doubt(name, "; ".join(problems), "read its log")
    return good(name, f"is alive, with plan {item.plan}")


def _problems(item: Process) -> Iterator[str]:
    for source in item.detail.get("sources", ()):
        if source.get("trouble"):
            yield f"source {source['source']} is waiting: {source['trouble']}"
    for thing, why in item.detail.get("refused", {}).items():
        yield f"{thing} is not served: {why}"
