"""Plots the history of a model: traffic shares, decisions and live quality of its versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from skewless.training.plots.canvas import COLOURS, Plot, Point, draw_plot, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Event = Literal["trained", "promoted", "rolled back"]
_MARKERS: Mapping[Event, str] = {"trained": "o", "promoted": "^", "rolled back": "X"}
_GREY = "#808080"
_ABOVE = 1.06  # position of the markers, as a share of the upper axes' height


@dataclass(frozen=True, kw_only=True)
class TrafficShares:
    """The traffic shares from a time on.

    Args:
        at_us: microseconds, UTC.
        of: version -> share of the entities, 0 to 1; versions that are not named have 0.
    """

    at_us: int
    of: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class DecisionMark:
    """A decision about a version."""

    at_us: int
    event: Event
    version: str


@dataclass(frozen=True, kw_only=True)
class VersionHistory:
    """The data of the plot.

    Args:
        versions: all versions, in order; each has one colour.
        shares: in order of time.
        until_us: end of the last share.
        quality: version -> the metric per time window.
        tested: version -> the metric on the test period of its training.
    """

    metric: str
    versions: Sequence[str]
    shares: Sequence[TrafficShares]
    marks: Sequence[DecisionMark]
    until_us: int
    quality: Mapping[str, Sequence[Point]]
    tested: Mapping[str, float]


def history_plot(history: VersionHistory) -> Plot:
    """Return a plot of traffic shares over time with decisions above, and of live quality below."""
    quality_labels = [f"live {history.metric}"] if history.quality else []
    with draw_plot(
        "Traffic share and quality by version",
        "time (UTC)",
        "share of the entities",
        *quality_labels,
        size=(10.4, 2.6 + 2.4 * len(quality_labels)),
    ) as canvas:
        colours = {version: COLOURS[i % len(COLOURS)] for i, version in enumerate(history.versions)}
        _draw_shares(canvas.axes, history, colours)
        _draw_marks(canvas.axes, history.marks, colours)
        canvas.axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.05))
        for axes in canvas.lower_axes:
            _draw_quality(axes, history, colours)
    return canvas.as_plot("life", _caption(history))


def _caption(history: VersionHistory) -> str:
    shares_text = (
        "Top: the share of the entities that each version serves. Markers are decisions in the colour of their version;"
        " a cross marks the version that was rolled back."
    )
    if not history.quality:
        return shares_text
    return (
        f"{shares_text} Bottom: {history.metric} of each version per time window, on predictions with known outcomes,"
        " shadow scores included. Bars are 95 % intervals: differences within them may be chance. Dotted: the metric on"
        " the test period of its training."
    )


def _draw_shares(axes: Axes, history: VersionHistory, colours: Mapping[str, str]) -> None:
    at = [*(step.at_us for step in history.shares), history.until_us]
    steps = [*history.shares, *history.shares[-1:]]
    heights = np.array([[step.of.get(version, 0.0) for step in steps] for version in history.versions])
    options: dict[str, Any] = {"step": "post", "linewidth": 0, "alpha": 0.75}
    axes.stackplot(times(at), heights, labels=history.versions, colors=list(colours.values()), **options)
    axes.set_ylim(0.0, 1.0)
    axes.margins(x=0.01)


def _draw_marks(axes: Axes, marks: Sequence[DecisionMark], colours: Mapping[str, str]) -> None:
    transform = axes.get_xaxis_transform()
    axes.title.set_position((0.5, 1.0))
    axes.set_title(axes.get_title(), pad=18)
    for event, marker in _MARKERS.items():
        marks_of_event = [mark for mark in marks if mark.event == event]
        if not marks_of_event:
            continue
        at = times([mark.at_us for mark in marks_of_event])
        axes.vlines(at, 0.0, 1.0, transform=transform, color=_GREY, linewidth=0.8, linestyle="--")
        colours_of_marks = [colours[mark.version] for mark in marks_of_event]
        options: dict[str, Any] = {"transform": transform, "clip_on": False, "zorder": 3, "s": 36, "marker": marker}
        axes.scatter(at, np.full(len(marks_of_event), _ABOVE), c=colours_of_marks, **options)
        axes.scatter([], [], color=_GREY, marker=marker, label=event)


def _draw_quality(axes: Axes, history: VersionHistory, colours: Mapping[str, str]) -> None:
    for version, points in history.quality.items():
        at, colour = times([point.at_us for point in points]), colours[version]
        axes.plot(at, [point.value for point in points], marker="o", markersize=4, color=colour)
        bounded = [(point.at_us, point.low, point.high) for point in points if point.low is not None]
        if bounded:
            at_us, low, high = zip(*bounded, strict=True)
            axes.vlines(times(at_us), low, high, color=colour, linewidth=1.5)
        if version in history.tested:
            axes.axhline(history.tested[version], linestyle=":", color=colour, linewidth=1.2)
