"""Plots are whole SVG, say what they show, and draw what they were given."""

from __future__ import annotations

import re
from functools import cache
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from skewless.contract.spec import Task
from skewless.training.curves import compute_curves
from skewless_mlflow.canvas import Plot
from skewless_mlflow.plots import evaluation_plots, importance_plot


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


def test_the_greatest_features_are_on_top_and_the_rest_is_said() -> None:
    plot = importance_plot({f"f{i}": float(i) for i in range(30)}, "gain", "what it is")
    named = [text for text in texts(plot) if re.fullmatch(r"f\d+", text)]
    assert sorted(named) == sorted(f"f{i}" for i in range(10, 30))
    assert plot.caption == "What it is. The 20 most important of 30 features."


def test_names_are_shown_as_they_are() -> None:
    plot = importance_plot({'a<b & "$x^2$"': 1.0}, "gain", "what")
    assert 'a<b & "$x^2$"' in texts(plot)
