"""Plots are whole SVG, say what they show, and draw what they were given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from skewless.contract.spec import Task
from skewless.training.curves import compute_curves
from skewless.training.plots.canvas import Plot, Point, series_plot
from skewless.training.plots.evaluation import evaluation_plots, importance_plot

HOUR = 3_600_000_000
NOON = 1_768_478_400_000_000


def some_curves(task: Task) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    scores = rng.random((300, 3)) if task == "multiclass" else rng.random(300)
    labels = rng.integers(0, 3, 300) if task == "multiclass" else rng.random(300) < scores
    return compute_curves(labels.astype(np.float64), scores, np.ones(300), task=task) | {
        "learning": {"auc": [0.6, 0.7, 0.69]},
        "importance": {"gain": {"a": 3.0, "b": 1.0}, "permutation": {"a": 0.1, "b": -0.01}, "metric": "auc"},
    }


@cache
def drawn_plots(task: Task) -> list[Plot]:
    """The plots of a task: drawn once, as each takes a tenth of a second."""
    return evaluation_plots(some_curves(task))


def texts(plot: Plot) -> list[str]:
    """Return the words in a plot, read by another parser."""
    root = ET.fromstring(plot.svg)  # noqa: S314 - our own
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("binary", ["roc", "precision_recall", "calibration", "scores"]),
        ("regression", ["calibration", "scores", "residuals"]),
        ("multiclass", ["confusion"]),
        ("ranking", ["scores"]),
    ],
)
def test_each_curve_of_a_task_becomes_a_plot(task: Task, names: list[str]) -> None:
    plots = drawn_plots(task)
    assert [plot.name for plot in plots] == [*names, "importance_gain", "importance_permutation", "learning"]
    for plot in plots:
        assert plot.title in texts(plot)
        assert plot.caption.endswith(".")
        assert len(texts(plot)) > 5


def test_what_is_not_there_is_not_plotted() -> None:
    assert evaluation_plots({}) == []
    one_class = compute_curves(np.zeros(9), np.linspace(0, 1, 9), np.ones(9), task="binary")
    assert [plot.name for plot in evaluation_plots(one_class)] == ["calibration", "scores"]


def test_a_plot_takes_the_colour_of_its_surroundings_and_needs_nothing_from_elsewhere() -> None:
    for plot in drawn_plots("binary"):
        assert "prefers-color-scheme:dark" in plot.svg
        assert "currentColor" in plot.svg
        assert "#010203" not in plot.svg
        assert "#000000" not in re.sub(r"<style.*?</style>", "", plot.svg, flags=re.DOTALL)
        outside = set(re.findall(r"https?://[^\"' ]+", plot.svg))
        assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


@pytest.mark.long
def test_the_same_values_give_the_same_text() -> None:
    assert evaluation_plots(some_curves("binary")) == drawn_plots("binary")


def test_a_line_goes_through_the_values() -> None:
    """The points of the first line lie on the screen as the values do: equal steps, and up is more."""
    points = [Point(at_us=NOON + i * HOUR, value=value) for i, value in enumerate([1.0, 3.0, 2.0])]
    plot = series_plot("q", "Quality", "AUC", "Of each version.", {"000001": points})
    paths = re.findall(r'<path d="([^"]+)"[^>]*stroke: #0072b2', plot.svg)
    path, _of_the_legend = (each for each in paths if each.count("L") == len(points) - 1)
    x, y = np.array([[float(n) for n in pair] for pair in re.findall(r"([\d.]+) ([\d.]+)", path)]).T
    assert np.allclose(np.diff(x), np.diff(x)[0], rtol=1e-3)
    assert np.isclose((y[0] - y[2]) / (y[0] - y[1]), 0.5, rtol=1e-3)


def test_an_interval_is_a_band_and_lines_have_names() -> None:
    plain = [Point(at_us=NOON, value=0.7), Point(at_us=NOON + HOUR, value=0.8)]
    banded = [Point(at_us=p.at_us, value=p.value, low=p.value - 0.1, high=p.value + 0.1) for p in plain]
    lines: Mapping[str, list[Point]] = {"one": plain, "two": banded}
    plot = series_plot("q", "Quality", "AUC", "Of each version.", lines, level=0.75)
    assert {"one", "two", "time (UTC)", "AUC"} <= set(texts(plot))
    assert plot.svg.count("FillBetweenPolyCollection") >= 1


def test_the_greatest_features_are_on_top_and_the_rest_is_said() -> None:
    plot = importance_plot({f"f{i}": float(i) for i in range(30)}, "gain", "what it is")
    named = [text for text in texts(plot) if re.fullmatch(r"f\d+", text)]
    assert sorted(named) == sorted(f"f{i}" for i in range(10, 30))
    assert plot.caption == "What it is. The 20 most important of 30 features."


def test_names_are_shown_as_they_are() -> None:
    plot = importance_plot({'a<b & "$x^2$"': 1.0}, "gain", "what")
    assert 'a<b & "$x^2$"' in texts(plot)
