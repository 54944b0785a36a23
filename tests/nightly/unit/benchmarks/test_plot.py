"""Plots are SVG that any browser reads."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree as ET

from benchmarks.growth import AXES, STEPS, plot
from benchmarks.plot import Panel, draw
from benchmarks.result import Result

SVG = "{http://www.w3.org/2000/svg}"


def test_points_lie_where_their_values_say() -> None:
    panel = Panel(title="a < b", x=[1, 2, 4], x_title="x", lines={"up": [1, 2, 4], "flat": [2, 2, 2]})
    root = ET.fromstring(draw([panel, panel, panel]))  # noqa: S314 - our own text
    up, flat = (
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        for line in list(root.iter(f"{SVG}polyline"))[:2]
    )
    assert len(root.findall(f"{SVG}g")) == 3
    steps = [(later[0] - first[0], first[1] - later[1]) for first, later in pairwise(up)]
    assert abs(steps[1][0] - 2 * steps[0][0]) < 0.3
    assert abs(steps[1][1] - 2 * steps[0][1]) < 0.3
    assert len({y for _, y in flat}) == 1
    assert flat[0][1] == up[1][1]
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"a < b", "1", "2", "4"} <= texts


def test_ticks_stand_for_positions_where_they_are_given() -> None:
    panel = Panel(title="t", x=range(2), x_title="x", lines={"a": [5, 7]}, ticks=["10", "1,000"])
    texts = {text.text for text in ET.fromstring(draw([panel])).iter(f"{SVG}text")}  # noqa: S314 - our own text
    assert {"10", "1,000"} <= texts
    assert "1" not in texts


def test_growth_is_drawn_over_history_and_entities() -> None:
    results = [
        Result(name=f"growth: {step} x {axis}, {work}", value=step, unit=unit, against="-", ratio=1)
        for axis in AXES
        for step in STEPS
        for work, unit in [
            ("materialise", "s"),
            ("join", "s"),
            ("materialise", "MB"),
            ("join", "MB"),
            ("online read", "ms"),
        ]
    ]
    text = plot(results)
    assert text.count("<polyline") == 10
    assert "growing history" in text
    assert "growing entities" in text
