"""Plots of a package's evaluation: ranking quality, calibration, errors and feature importance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skewless_mlflow.canvas import COLOURS, Plot, draw_plot

Json = Mapping[str, Any]
_MOST_FEATURES = 20
_KINDS = {
    "gain": "gain: the total decrease of the training loss by the splits on a feature",
    "permutation": "permutation: the decrease of the metric on test rows after the feature's values are shuffled",
}


def evaluation_plots(curves: Json) -> list[Plot]:
    """Return a plot for each entry in a package's ``curves``."""
    makers: Mapping[str, Callable[[Any], Plot]] = {
        "roc": _roc,
        "precision_recall": _precision_recall,
        "calibration": _calibration,
        "scores": _scores,
        "residuals": _residuals,
        "confusion": _confusion,
    }
    plots = [make(curves[name]) for name, make in makers.items() if curves.get(name)]
    importance = curves.get("importance") or {}
    plots += [importance_plot(importance[kind], kind, note) for kind, note in _KINDS.items() if importance.get(kind)]
    return plots + ([_learning(curves["learning"])] if curves.get("learning") else [])


def importance_plot(values: Mapping[str, float], kind: str, note: str) -> Plot:
    """Return a bar plot of the most important features, the highest on top.

    Args:
        values: importance by feature.
        kind: name of the kind of importance.
        note: explains the number, for the caption.
    """
    top = sorted(values.items(), key=lambda item: -item[1])[:_MOST_FEATURES][::-1]
    with draw_plot(f"Importance of features ({kind})", kind, "", size=(5.2, 1.0 + 0.24 * len(top))) as canvas:
        canvas.axes.barh([name for name, _ in top], [value for _, value in top], color=COLOURS[0])
        canvas.axes.grid(visible=False, axis="y")
    more = f" The {_MOST_FEATURES} most important of {len(values)} features." if len(values) > _MOST_FEATURES else ""
    return canvas.as_plot(f"importance_{kind}", f"{note[0].upper()}{note[1:]}.{more}")


def _roc(curve: Json) -> Plot:
    with draw_plot(
        "ROC curve", "false positive rate (share of negatives)", "true positive rate (share of positives)"
    ) as canvas:
        canvas.axes.plot([0, 1], [0, 1], linestyle=":", color="#808080", label="chance")
        canvas.axes.plot(curve["false_positive"], curve["true_positive"], color=COLOURS[0], label="model")
    caption = (
        "Receiver operating characteristic: the true positive rate against the false positive rate at every threshold."
        " Closer to the upper left corner is better. The area under the curve is the AUC: the probability that a"
        " positive row scores higher than a negative row."
    )
    return canvas.as_plot("roc", caption)


def _precision_recall(curve: Json) -> Plot:
    with draw_plot(
        "Precision and recall", "recall (share of all positives)", "precision (share of positive predictions)"
    ) as canvas:
        canvas.axes.plot(curve["recall"], curve["precision"], color=COLOURS[0])
        canvas.axes.set_ylim(0.0, 1.03)
    caption = (
        "At every threshold: precision is the share of true positives in the positive predictions, recall is their"
        " share in all positive rows. At recall 1, precision is the base rate."
    )
    return canvas.as_plot("precision_recall", caption)


def _calibration(rows: Sequence[Json]) -> Plot:
    scores, labels = [row["score"] for row in rows], [row["label"] for row in rows]
    ends = [min(scores + labels), max(scores + labels)]
    with draw_plot("Calibration", "mean score of a bin", "mean label of a bin") as canvas:
        canvas.axes.plot(ends, ends, linestyle=":", color="#808080", label="perfect")
        canvas.axes.plot(scores, labels, marker="o", markersize=4, color=COLOURS[0], label="model")
    caption = (
        "Test rows in bins of equal count, by score. On the dotted line, 3 of 10 rows with score 0.3 are positive."
        " Below the line the scores are too high, above it too low."
    )
    return canvas.as_plot("calibration", caption)


def _scores(histograms: Mapping[str, Json]) -> Plot:
    with draw_plot("Scores of the test rows", "score", "share of the rows of a label in a bin") as canvas:
        for colour, (label, histogram) in zip(COLOURS, histograms.items(), strict=False):
            total = sum(histogram["counts"]) or 1
            shares = [count / total for count in histogram["counts"]]
            name = "all rows" if label == "all" else f"label {label}"
            canvas.axes.stairs(shares, histogram["edges"], fill=True, alpha=0.35, color=colour)
            canvas.axes.stairs(shares, histogram["edges"], color=colour, label=name)
    caption = "The distribution of the scores for each label. Less overlap is better."
    return canvas.as_plot("scores", caption)


def _residuals(histogram: Json) -> Plot:
    with draw_plot("Residuals of the test rows", "label minus prediction (unit of the label)", "rows") as canvas:
        canvas.axes.stairs(histogram["counts"], histogram["edges"], fill=True, alpha=0.6, color=COLOURS[0])
        canvas.axes.axvline(0.0, linestyle=":", color="#808080")
    caption = "Residual: label minus prediction. The distribution should be centred on 0 and symmetric."
    return canvas.as_plot("residuals", caption)


def _confusion(table: Sequence[Sequence[float]]) -> Plot:
    shares = [[cell / (sum(row) or 1.0) for cell in row] for row in table]
    with draw_plot("Confusion matrix", "predicted class", "label", size=(4.4, 3.8)) as canvas:
        canvas.axes.imshow(shares, cmap="cividis", vmin=0.0, vmax=1.0)
        canvas.axes.grid(visible=False)
        canvas.axes.set_xticks(range(len(table)))
        canvas.axes.set_yticks(range(len(table)))
        for i, row in enumerate(shares):
            for j, share in enumerate(row):
                ink = "#ffffff" if share < 0.5 else "#000000"  # noqa: PLR2004 - half of the colour map is dark
                canvas.axes.text(j, i, f"{share:.0%}", ha="center", va="center", color=ink)
    caption = "Each row is a label; the cells are the shares of its predicted classes."
    return canvas.as_plot("confusion", caption)


def _learning(metrics: Mapping[str, Sequence[float]]) -> Plot:
    with draw_plot("Learning curve", "boosting round (trees)", "metric on the validation period") as canvas:
        for colour, (name, values) in zip(COLOURS, metrics.items(), strict=False):
            canvas.axes.plot(range(1, len(values) + 1), values, color=colour, label=name)
    caption = (
        "The library's metric on rows of the validation period after each round. Where it gets worse, more trees only"
        " overfit the training rows."
    )
    return canvas.as_plot("learning", caption)
