"""Plots of a package's evaluation: ranking quality, calibration, errors and feature importance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from skewless_control_room.plots import Curve, plot_bars, plot_curves, plot_histogram, plot_shares

Json = Mapping[str, Any]
_MOST_FEATURES = 20
_KINDS = {
    "gain": "Gain: the total decrease of the training loss by the splits on a feature.",
    "permutation": "Permutation: the decrease of the metric on test rows after the feature's values are shuffled.",
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot with its explanation.

    Args:
        name: file name without ``.svg``.
        caption: explains what the plot shows and how to read it.
        svg: an ``<svg>`` element for a page; ``make_file`` of ``plots`` makes a file of it.
    """

    name: str
    title: str
    caption: str
    svg: Markup


def evaluation_plots(curves: Json) -> Iterator[Plot]:
    """Yield a plot for each entry in a package's ``curves``."""
    for name, draw in _DRAWN.items():
        if curves.get(name):
            yield draw(curves[name])
    importance = curves.get("importance") or {}
    for kind, note in _KINDS.items():
        if importance.get(kind):
            yield importance_plot(importance[kind], kind, note)
    if curves.get("learning"):
        yield _learning(curves["learning"])


def importance_plot(values: Mapping[str, float], kind: str, note: str) -> Plot:
    """Return a bar plot of the most important features, the highest on top.

    Args:
        values: importance by feature.
        kind: name of the kind of importance.
        note: explains the number, for the caption.
    """
    top = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:_MOST_FEATURES]
    title = f"Importance of features ({kind})"
    more = f" The {_MOST_FEATURES} most important of {len(values)} features." if len(values) > _MOST_FEATURES else ""
    svg = plot_bars(top, unit=kind, label=title)
    return Plot(name=f"importance_{kind}", title=title, caption=f"{note}{more}", svg=svg)


def _roc(curve: Json) -> Plot:
    model = Curve(name="model", x=curve["false_positive"], y=curve["true_positive"])
    lines = [model, Curve(name="chance", x=[0, 1], y=[0, 1])]
    units = "false positive rate (share of negatives)", "true positive rate (share of positives)"
    caption = (
        "The true positive rate against the false positive rate at every threshold. Closer to the upper left corner is"
        " better. The area under the curve is the AUC: the probability that a positive row scores higher than a"
        " negative row."
    )
    return _curve_plot("roc", "ROC curve", caption, lines, units)


def _precision_recall(curve: Json) -> Plot:
    lines = [Curve(name="model", x=curve["recall"], y=curve["precision"])]
    units = "recall (share of all positives)", "precision (share of positive predictions)"
    caption = (
        "At every threshold: precision is the share of true positives in the positive predictions, recall is their"
        " share in all positive rows. At recall 1, precision is the base rate."
    )
    return _curve_plot("precision_recall", "Precision and recall", caption, lines, units)


def _calibration(rows: Sequence[Json]) -> Plot:
    scores, labels = [row["score"] for row in rows], [row["label"] for row in rows]
    ends = [min(scores + labels), max(scores + labels)]
    lines = [Curve(name="model", x=scores, y=labels), Curve(name="perfect", x=ends, y=ends)]
    caption = (
        "Test rows in bins of equal count, by score. On the straight line, 3 of 10 rows with score 0.3 are positive."
        " Below the line the scores are too high, above it too low."
    )
    return _curve_plot("calibration", "Calibration", caption, lines, ("mean score of a bin", "mean label of a bin"))


def _learning(metrics: Mapping[str, Sequence[float]]) -> Plot:
    lines = [Curve(name=name, x=range(1, len(values) + 1), y=values) for name, values in metrics.items()]
    caption = (
        "The library's metric on rows of the validation period after each round. Where it gets worse, more trees only"
        " overfit the training rows."
    )
    return _curve_plot("learning", "Learning curve", caption, lines, ("boosting round (trees)", "metric"))


def _curve_plot(name: str, title: str, caption: str, lines: Sequence[Curve], units: tuple[str, str]) -> Plot:
    svg = plot_curves(lines, x_unit=units[0], y_unit=units[1], label=title)
    return Plot(name=name, title=title, caption=caption, svg=svg)


def _scores(histograms: Mapping[str, Json]) -> Plot:
    title, caption = (
        "Scores of the test rows",
        "The scores of each label, as shares of its rows. Less overlap is better.",
    )
    named = [
        ("all rows" if label == "all" else f"label {label}", _shares(item["counts"]))
        for label, item in histograms.items()
    ]
    svg = plot_histogram(next(iter(histograms.values()))["edges"], named, unit="score", label=title)
    return Plot(name="scores", title=title, caption=caption, svg=svg)


def _residuals(histogram: Json) -> Plot:
    title, unit = "Residuals of the test rows", "label minus prediction (unit of the label)"
    caption = "Residual: label minus prediction. The distribution should be centred on 0 and symmetric."
    svg = plot_histogram(histogram["edges"], [("residuals", _shares(histogram["counts"]))], unit=unit, label=title)
    return Plot(name="residuals", title=title, caption=caption, svg=svg)


def _confusion(table: Sequence[Sequence[float]]) -> Plot:
    title, caption = "Confusion matrix", "Each row is a label; the cells are the shares of its predicted classes."
    svg = plot_shares([_shares(row) for row in table], x_unit="predicted class", y_unit="label", label=title)
    return Plot(name="confusion", title=title, caption=caption, svg=svg)


def _shares(counts: Sequence[float]) -> list[float]:
    return [count / (sum(counts) or 1) for count in counts]


_DRAWN: Mapping[str, Callable[[Any], Plot]] = {
    "roc": _roc,
    "precision_recall": _precision_recall,
    "calibration": _calibration,
    "scores": _scores,
    "residuals": _residuals,
    "confusion": _confusion,
}
