"""What 4 and 16 times the history, or the entities, cost: join, materialisation and online read."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contestant import Contestant
from benchmarks.growing import JOIN, LOAD, READ, everything
from benchmarks.meter import Report
from benchmarks.plot import Panel, draw
from benchmarks.repo import ViewTable, applied_repo
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.server import own_server

STEPS = (1, 4, 16)
AXES = ("history", "entities")
_ENTITIES, _HOURS, _FEATURES, _ASKED = 20_000, 5, 10, 100_000
_TIME, _MEMORY = "s", "MB"


def run() -> list[Result]:
    """Measure every step of both axes; the first step is the same on both."""
    base = _measure("history", 1)
    results = []
    for axis in AXES:
        for step in STEPS:
            results += _results(axis, step, base if step == 1 else _measure(axis, step), base)
    return results


def plot(results: Sequence[Result]) -> str:
    """Return the results as an SVG: seconds and memory over history and over entities."""
    values = {(item.name.partition(": ")[2], item.unit): item.value for item in results}
    panels = []
    for unit, works in ((_TIME, (LOAD, JOIN)), (_MEMORY, (LOAD, JOIN)), ("ms", (READ,))):
        for axis in AXES:
            lines = {work: [values[f"{step} x {axis}, {work}", unit] for step in STEPS] for work in works}
            panels.append(Panel(title=f"{unit}, growing {axis}", x=STEPS, x_title=f"times the {axis}", lines=lines))
    return draw(panels)


def _measure(axis: str, step: int) -> Report:
    table = ViewTable(
        name="grown",
        n_entities=scaled(_ENTITIES) * (step if axis == "entities" else 1),
        n_features=_FEATURES,
        per_entity=_HOURS * (step if axis == "history" else 1),
    )
    with tempfile.TemporaryDirectory() as name, own_server() as url:
        folder = Path(name)
        table.write(folder)
        arguments = {
            "repo": str(applied_repo(folder / "repo", [table], folder)),
            "url": url,
            "n_entities": table.n_entities,
            "hours": table.per_entity,
            "asked": scaled(_ASKED),
        }
        return Contestant(name=f"{step} x {axis}", entrant=everything, arguments=arguments).run()


def _results(axis: str, step: int, report: Report, base: Report) -> list[Result]:
    measured = [
        (LOAD, _TIME, report.seconds(LOAD), base.seconds(LOAD)),
        (JOIN, _TIME, report.seconds(JOIN), base.seconds(JOIN)),
        (READ, "ms", report.seconds(READ) * 1e3, base.seconds(READ) * 1e3),
        (LOAD, _MEMORY, report.peak_bytes(LOAD) / 1e6, base.peak_bytes(LOAD) / 1e6),
        (JOIN, _MEMORY, report.peak_bytes(JOIN) / 1e6, base.peak_bytes(JOIN) / 1e6),
    ]
    return [
        Result(
            name=f"growth: {step} x {axis}, {what}", value=value, unit=unit, against=f"1 x {axis}", ratio=value / first
        )
        for what, unit, value, first in measured
    ]
