"""Growth of serving: each axis moves one thing, and its plot has a line for each quantity."""

from __future__ import annotations

from dataclasses import asdict
from xml.etree import ElementTree as ET

import pytest

from benchmarks.result import Result
from benchmarks.serving_growth import AXES, BASE, plot, shape_of

FIELDS = {
    "features": {"n_features"},
    "views": {"n_views"},
    "trees": {"rounds"},
    "entities": {"n_cards", "n_shops"},
}


@pytest.mark.parametrize("axis", AXES)
def test_an_axis_moves_its_own_field_and_meets_the_common_shape(axis: str) -> None:
    shapes = [shape_of(axis, step) for step in AXES[axis]]
    assert BASE in shapes
    for shape in shapes:
        moved = {name for name, value in asdict(shape).items() if value != asdict(BASE)[name]}
        assert moved <= FIELDS[axis]
    assert len(set(shapes)) == len(shapes)


def test_the_plot_has_a_panel_for_each_axis_with_two_lines() -> None:
    rows = [
        Result(name=f"serving_growth: {step:,} {axis}, {what}", value=step, unit="us", against="-", ratio=1.0)
        for axis, steps in AXES.items()
        for step in steps
        for what in ("p50, concurrency 1", "CPU of a request, concurrency 16")
    ]
    root = ET.fromstring(plot(rows))  # noqa: S314 - our own text
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 2 * len(AXES)
