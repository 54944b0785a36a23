"""Plots of a package's evaluation: how well it orders, how far its numbers can be believed, what it learnt from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skewless.training.plots.canvas import COLOURS, Plot, drawn

Json = Mapping[str, Any]
_MOST_FEATURES = 20
_KINDS = {
    "gain": "gain: how much the splits on a feature lowered the loss in training, summed up",
    "permutation": "permutation: how much the metric falls on unseen rows once the feature's values change places",
}


def evaluation_plots(curves: Json) -> list[Plot]:
    """Return the plots of what a package's ``curves`` hold; of what is not there, none."""
    makers: Mapping[str, Callable[[Any], Plot]] = {
        "roc": _roc,
        "precision_recall": _precision_recall,
        "calibration": _calibration,
        "scores": _scores,
        "residuals": _residuals,
        "confusion": _confusion,
    }
    found = [make(curves[name]) for name, make in makers.items() if curves.get(name)]
    importance = curves.get("importance") or {}
    found += [importance_plot(importance[kind], kind, note) for kind, note in _KINDS.items() if importance.get(kind)]
    return found + ([_learning(curves["learning"])] if curves.get("learning") else [])


def importance_plot(values: Mapping[str, float], kind: str, note: str) -> Plot:
    """Return bars of the features that matter most, the greatest on top.

    Args:
        values: by feature.
        kind: names it.
        note: what the number is, for the caption.
    """
    top = sorted(values.items(), key=lambda item: -item[1])[:_MOST_FEATURES][::-1]
    title = f"Importance of features ({kind})"
    with drawn(title, kind, "", size=(5.2, 1.0 + 0.24 * len(top))) as canvas:
        canvas.axes.barh([name for name, _ in top], [value for _, value in top], color=COLOURS[0])
        canvas.axes.grid(visible=False, axis="y")
    more = f" The {_MOST_FEATURES} greatest of {len(values)}." if len(values) > _MOST_FEATURES else ""
    return Plot(name=f"importance_{kind}", title=title, caption=f"{_sentence(note)}{more}", svg=canvas.svg)


def _roc(curve: Json) -> Plot:
    title = "ROC curve"
    with drawn(title, "false positive rate (share of negatives)", "true positive rate (share of positives)") as canvas:
        canvas.axes.plot([0, 1], [0, 1], linestyle=":", color="#808080", label="chance")
        canvas.axes.plot(curve["false_positive"], curve["true_positive"], color=COLOURS[0], label="model")
    caption = (
        "Receiver operating characteristic: for every threshold, how many of the positive rows are called positive"
        " against how many of the negative ones are. The nearer to the upper left corner the better; the area below"
        " is the AUC, the chance that a positive row scores higher than a negative one."
    )
    return Plot(name="roc", title=title, caption=caption, svg=canvas.svg)


def _precision_recall(curve: Json) -> Plot:
    title = "Precision and recall"
    with drawn(title, "recall (share of positives found)", "precision (share of calls that are right)") as canvas:
        canvas.axes.plot(curve["recall"], curve["precision"], color=COLOURS[0])
        canvas.axes.set_ylim(0.0, 1.03)
    caption = (
        "For every threshold: precision is the share of positive rows among those called positive, recall the share"
        " of all positive rows that are called so. It falls to the base rate at recall 1."
    )
    return Plot(name="precision_recall", title=title, caption=caption, svg=canvas.svg)


def _calibration(rows: Sequence[Json]) -> Plot:
    title = "Calibration"
    scores, labels = [row["score"] for row in rows], [row["label"] for row in rows]
    ends = [min(scores + labels), max(scores + labels)]
    with drawn(title, "mean score of a bin", "mean label of a bin") as canvas:
        canvas.axes.plot(ends, ends, linestyle=":", color="#808080", label="perfect")
        canvas.axes.plot(scores, labels, marker="o", markersize=4, color=COLOURS[0], label="model")
    caption = (
        "Test rows in bins of equal count, by score. On the dotted line a score of 0.3 means that 3 of 10 such rows"
        " are positive; below it the model promises too much, above it too little."
    )
    return Plot(name="calibration", title=title, caption=caption, svg=canvas.svg)


def _scores(histograms: Mapping[str, Json]) -> Plot:
    title = "Scores of the test rows"
    with drawn(title, "score", "share of the rows of a label in a bin") as canvas:
        for colour, (label, histogram) in zip(COLOURS, histograms.items(), strict=False):
            total = sum(histogram["counts"]) or 1
            shares = [count / total for count in histogram["counts"]]
            name = "all rows" if label == "all" else f"label {label}"
            canvas.axes.stairs(shares, histogram["edges"], fill=True, alpha=0.35, color=colour)
            canvas.axes.stairs(shares, histogram["edges"], color=colour, label=name)
    caption = "How the scores are spread, each label's rows for themselves. The less they overlap the better."
    return Plot(name="scores", title=title, caption=caption, svg=canvas.svg)


def _residuals(histogram: Json) -> Plot:
    title = "Residuals of the test rows"
    with drawn(title, "label less prediction (unit of the label)", "rows") as canvas:
        canvas.axes.stairs(histogram["counts"], histogram["edges"], fill=True, alpha=0.6, color=COLOURS[0])
        canvas.axes.axvline(0.0, linestyle=":", color="#808080")
    caption = "Residual: by how much the label is above the prediction. They should lie around 0, and not lean."
    return Plot(name="residuals", title=title, caption=caption, svg=canvas.svg)


def _confusion(table: Sequence[Sequence[float]]) -> Plot:
    title = "Confusion of classes"
    shares = [[cell / (sum(row) or 1.0) for cell in row] for row in table]
    with drawn(title, "likeliest class by the model", "label", size=(4.4, 3.8)) as canvas:
        canvas.axes.imshow(shares, cmap="cividis", vmin=0.0, vmax=1.0)
        canvas.axes.grid(visible=False)
        canvas.axes.set_xticks(range(len(table)))
        canvas.axes.set_yticks(range(len(table)))
        for i, row in enumerate(shares):
            for j, share in enumerate(row):
                ink = "#ffffff" if share < 0.5 else "#000000"  # noqa: PLR2004 - half of the colour map is dark
                canvas.axes.text(j, i, f"{share:.0%}", ha="center", va="center", color=ink)
    caption = "Each row is a label; the cells say which class the model held for the likeliest, as shares of the row."
    return Plot(name="confusion", title=title, caption=caption, svg=canvas.svg)


def _learning(metrics: Mapping[str, Sequence[float]]) -> Plot:
    title = "Learning curve"
    with drawn(title, "boosting round (trees)", "metric on the validation period") as canvas:
        for colour, (name, values) in zip(COLOURS, metrics.items(), strict=False):
            canvas.axes.plot(range(1, len(values) + 1), values, color=colour, label=name)
    caption = (
        "The metric, as the library names it, on rows of the validation period after each round. Where it turns, more"
        " trees begin to learn the training rows by heart."
    )
    return Plot(name="learning", title=title, caption=caption, svg=canvas.svg)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
