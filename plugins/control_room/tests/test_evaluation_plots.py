"""Plots are whole SVG, say what they show, and draw what they were given."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from skewless.contract.spec import Task
from skewless.training.curves import compute_curves
from skewless_control_room.evaluation_plots import Plot, evaluation_plots, importance_plot
from skewless_control_room.plots import make_file


def some_curves(task: Task) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    scores = rng.random((300, 3)) if task == "multiclass" else rng.random(300)
    labels = rng.integers(0, 3, 300) if task == "multiclass" else rng.random(300) < scores
    return compute_curves(labels.astype(np.float64), scores, np.ones(300), task=task) | {
        "learning": {"auc": [0.6, 0.7, 0.69]},
        "importance": {"gain": {"a": 3.0, "b": 1.0}, "permutation": {"a": 0.1, "b": -0.01}, "metric": "auc"},
    }


def texts(plot: Plot) -> list[str]:
    """Return the words in a plot's file, read by another parser."""
    root = ET.fromstring(make_file(plot.svg))  # noqa: S314 - our own
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
    plots = list(evaluation_plots(some_curves(task)))
    assert [plot.name for plot in plots] == [*names, "importance_gain", "importance_permutation", "learning"]
    for plot in plots:
        assert f'aria-label="{plot.title}"' in plot.svg
        assert plot.caption.endswith(".")
        assert len(texts(plot)) >= 5


def test_a_missing_curve_is_not_plotted() -> None:
    assert list(evaluation_plots({})) == []
    one_class = compute_curves(np.zeros(9), np.linspace(0, 1, 9), np.ones(9), task="binary")
    assert [plot.name for plot in evaluation_plots(one_class)] == ["calibration", "scores"]


def test_a_file_takes_the_colour_of_its_surroundings_and_needs_no_other_file() -> None:
    for plot in evaluation_plots(some_curves("binary")):
        text = make_file(plot.svg)
        assert "prefers-color-scheme:dark" in text
        assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
        styles = set(re.findall(r'class="(?:line |band )?([a-z0-9]+)"', plot.svg)) - {"soft"}
        assert all(f".{name}{{" in text for name in styles), styles


def test_a_confusion_matrix_has_the_shares_of_each_label() -> None:
    (plot,) = evaluation_plots({"confusion": [[3.0, 1.0], [0.0, 2.0]]})
    assert [text for text in texts(plot) if text.endswith("%")] == ["75%", "25%", "0%", "100%"]


def test_the_greatest_features_are_on_top_and_the_rest_is_counted() -> None:
    plot = importance_plot({f"f{i}": float(i) for i in range(30)}, "gain", "The gain.")
    assert [text for text in texts(plot) if re.fullmatch(r"f\d+", text)] == [f"f{i}" for i in range(29, 9, -1)]
    assert plot.caption == "The gain. The 20 most important of 30 features."


def test_names_are_shown_as_they_are() -> None:
    assert 'a<b & "$x^2$"' in texts(importance_plot({'a<b & "$x^2$"': 1.0}, "gain", "The gain."))
