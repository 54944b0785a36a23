"""The processes of a project: whether they live, and on which plan each of them works."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.contract.errors import SkewlessError
from skewless.operations.checkup.finding import CheckupFinding, doubt, good

if TYPE_CHECKING:
    from skewless.infra.host.processes import Process

_TIME_TO_TAKE_UP_S = 30.0


def check_processes(state: Path) -> list[CheckupFinding]:
    """Say of each process whether it is heard of, works on the plan in force, and can go on."""
    from skewless.infra.host.processes import read_processes
    from skewless.infra.plans.applied_plan import read_applied

    try:
        applied = read_applied(state)
    except SkewlessError:
        return []  # the plan's own check says so
    found, now_s = read_processes(state), time.time()
    in_force = "" if applied is None else applied.plan.hash
    findings = [_judge(item, in_force, now_s) for item in found]
    running = any(item.kind == "stream" and not item.is_silent(now_s) for item in found)
    if applied is not None and applied.plan.sources and not running:
        findings.append(doubt("stream worker", "none runs: windows stand still", "start `skewless stream`"))
    return findings


def _judge(item: Process, in_force: str, now_s: float) -> CheckupFinding:
    name = f"{item.kind} {item.host} {item.pid}"
    if item.is_silent(now_s):
        silent = f"has not been heard of for {item.silent_s(now_s):,.0f} s: it is dead or stuck"
        return doubt(name, silent, f"start `skewless {_VERB[item.kind]}` again, after ending what is left of it")
    if item.plan != in_force and now_s - item.started_s > _TIME_TO_TAKE_UP_S:
        return doubt(
            name,
            f"works on plan {item.plan or 'none'}, not on {in_force}",
            "see its log: it says why (plan_load_failed)",
        )
    problems = list(_problems(item))
    if problems:
        return doubt(name, "; ".join(problems), "see its log")
    return good(name, f"lives, on plan {item.plan}")


_VERB = {"server": "serve", "stream": "stream", "scheduler": "scheduler"}


def _problems(item: Process) -> Iterator[str]:
    for source in item.detail.get("sources", ()):
        if source.get("trouble"):
            yield f"source {source['source']} waits: {source['trouble']}"
    for thing, why in item.detail.get("refused", {}).items():
        yield f"{thing} is not served: {why}"
