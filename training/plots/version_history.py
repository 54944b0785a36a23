"""The life of a model in one plot: who answered whom, what was decided, and how good each version was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from skewless.training.plots.canvas import COLOURS, Plot, drawn
from skewless.training.plots.series import Point, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Event = Literal["trained", "promoted", "rolled back"]
_MARKERS: Mapping[Event, str] = {"trained": "o", "promoted": "^", "rolled back": "X"}
_GREY = "#808080"
_ABOVE = 1.06  # of the upper axes' height: where the markers are


@dataclass(frozen=True, kw_only=True)
class TrafficShares:
    """Who answers whom from a moment on.

    Args:
        at_us: microseconds, UTC.
        of: version -> share of the entities, 0 to 1; who is not named has none.
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
    """What is drawn.

    Args:
        versions: all, in order; each has the same colour everywhere.
        shares: in order of time.
        until_us: where the last share ends.
        quality: version -> the metric, window by window.
        tested: version -> the same metric on the test period of its training.
    """

    metric: str
    versions: Sequence[str]
    shares: Sequence[TrafficShares]
    marks: Sequence[DecisionMark]
    until_us: int
    quality: Mapping[str, Sequence[Point]]
    tested: Mapping[str, float]


def life_plot(life: VersionHistory) -> Plot:
    """Return the shares of the versions over time, decisions above, quality beneath on the same time."""
    title = "Traffic share and quality by version"
    beneath = [f"live {life.metric}"] if life.quality else []
    with drawn(title, "time (UTC)", "share of the entities", *beneath, size=(10.4, 2.6 + 2.4 * len(beneath))) as canvas:
        colours = {version: COLOURS[i % len(COLOURS)] for i, version in enumerate(life.versions)}
        _draw_shares(canvas.axes, life, colours)
        _draw_marks(canvas.axes, life.marks, colours)
        canvas.axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.05))
        for axes in canvas.beneath:
            _draw_quality(axes, life, colours)
    return Plot(name="life", title=title, caption=_caption(life), svg=canvas.svg)


def _caption(life: VersionHistory) -> str:
    said = (
        "Above: the share of the entities that each version answers; the markers are decisions in the colour of their"
        " version, a cross in that of the version that had to go."
    )
    if not life.quality:
        return said
    return (
        f"{said} Beneath: {life.metric} of each version on predictions whose outcome is known, window by window, in"
        " shadow too; bars are 95 % intervals: differences within them may be chance. Dotted: what the version had on"
        " the test period of its training."
    )


def _draw_shares(axes: Axes, life: VersionHistory, colours: Mapping[str, str]) -> None:
    at = [*(step.at_us for step in life.shares), life.until_us]
    steps = [*life.shares, *life.shares[-1:]]
    heights = np.array([[step.of.get(version, 0.0) for step in steps] for version in life.versions])
    options: dict[str, Any] = {"step": "post", "linewidth": 0, "alpha": 0.75}
    axes.stackplot(times(at), heights, labels=life.versions, colors=list(colours.values()), **options)
    axes.set_ylim(0.0, 1.0)
    axes.margins(x=0.01)


def _draw_marks(axes: Axes, marks: Sequence[DecisionMark], colours: Mapping[str, str]) -> None:
    place = axes.get_xaxis_transform()
    axes.title.set_position((0.5, 1.0))
    axes.set_title(axes.get_title(), pad=18)
    for event, marker in _MARKERS.items():
        found = [mark for mark in marks if mark.event == event]
        if not found:
            continue
        here = times([mark.at_us for mark in found])
        axes.vlines(here, 0.0, 1.0, transform=place, color=_GREY, linewidth=0.8, linestyle="--")
        paint = [colours[mark.version] for mark in found]
        options: dict[str, Any] = {"transform": place, "clip_on": False, "zorder": 3, "s": 36, "marker": marker}
        axes.scatter(here, np.full(len(found), _ABOVE), c=paint, **options)
        axes.scatter([], [], color=_GREY, marker=marker, label=event)


def _draw_quality(axes: Axes, life: VersionHistory, colours: Mapping[str, str]) -> None:
    for version, points in life.quality.items():
        at, colour = times([point.at_us for point in points]), colours[version]
        axes.plot(at, [point.value for point in points], marker="o", markersize=4, color=colour)
        bounded = [(point.at_us, point.low, point.high) for point in points if point.low is not None]
        if bounded:
            moments, low, high = zip(*bounded, strict=True)
            axes.vlines(times(moments), low, high, color=colour, linewidth=1.5)
        if version in life.tested:
            axes.axhline(life.tested[version], linestyle=":", color=colour, linewidth=1.2)
