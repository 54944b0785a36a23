"""What more features, views, trees and entities cost a request: nothing may grow faster than they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.plot import Panel, draw
from benchmarks.result import Result
from benchmarks.scale import scale, scaled
from benchmarks.serving_project import pair_contender, served_project
from benchmarks.serving_race import race_servers, seconds
from benchmarks.serving_repo import Shape

AXES: Mapping[str, Sequence[int]] = {
    "features": (10, 40, 200, 1_000),
    "views": (1, 2, 4, 8),
    "trees": (10, 200, 700, 2_000),
    "entities": (1_000, 10_000, 100_000, 1_000_000),
}
BASE = Shape(n_cards=10_000, n_shops=1_000, n_labels=10_000)
ALONE, MANY = 1, 16
_NAME = "serving_growth"
_P50, _COST = f"p50, concurrency {ALONE}", f"CPU of a request, concurrency {MANY}"

Facts = Mapping[str, float]


def run() -> list[Result]:
    """Measure every step of every axis; the shape that all axes share is measured once."""
    measured: dict[Shape, Facts] = {}
    results = []
    for axis, steps in AXES.items():
        shapes = [shape_of(axis, step) for step in steps]
        for shape in shapes:
            if shape not in measured:
                measured[shape] = _measure(shape)
        facts = [measured[shape] for shape in shapes]
        results += [_row(axis, steps, facts, place, what) for what in (_P50, _COST) for place in range(len(steps))]
    return results


def shape_of(axis: str, step: int) -> Shape:
    """Return the project of one step along an axis; what is not the axis stays as it is.

    >>> shape_of("trees", 2000).rounds, shape_of("trees", 2000).n_features
    (2000, 40)
    """
    match axis:
        case "features":
            return replace(BASE, n_features=step)
        case "views":
            return replace(BASE, n_views=step)
        case "trees":
            return replace(BASE, rounds=step)
        case _:
            return replace(BASE, n_cards=step, n_shops=max(step // 10, 1))


def plot(results: Sequence[Result]) -> str:
    """Return the results as an SVG: microseconds over each axis."""
    values = {item.name.partition(": ")[2]: item.value for item in results}
    panels = [
        Panel(
            title=f"us, growing {axis}",
            x=range(len(steps)),
            x_title=f"{axis}, not to scale",
            ticks=[f"{step:,}" for step in steps],
            lines={what: [values[_what(axis, step, what)] for step in steps] for what in (_P50, _COST)},
        )
        for axis, steps in AXES.items()
    ]
    return draw(panels)


def _measure(shape: Shape) -> Facts:
    small = replace(
        shape,
        n_cards=min(shape.n_cards, scaled(shape.n_cards, least=1_000)),
        rounds=min(shape.rounds, scaled(shape.rounds, least=10)),
    )
    with served_project(small) as project:
        contender = pair_contender(project)
        done = race_servers([contender], (ALONE, MANY), project.where, rounds=1, load_s=seconds(3))
    (report,) = done.reports[contender.server.name]
    return {_P50: report.facts[f"{ALONE} p50"] * 1e3, _COST: report.facts[f"{MANY} cpu_us"]}


def _row(axis: str, steps: Sequence[int], facts: Sequence[Facts], place: int, what: str) -> Result:
    value, first = facts[place][what], facts[0][what]
    last = place == len(steps) - 1 and scale() == 1
    return Result(
        name=f"{_NAME}: {_what(axis, steps[place], what)}",
        value=value,
        unit="us",
        against=f"{steps[0]:,} {axis} ({first:.3g} us)",
        ratio=value / first,
        target=steps[-1] / steps[0] if last else None,
    )


def _what(axis: str, step: int, what: str) -> str:
    return f"{step:,} {axis}, {what}"
