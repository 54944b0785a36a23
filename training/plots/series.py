"""Line plots over time, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skewless.training.plots.canvas import COLOURS, Plot, draw_plot

_DAY_US = 86_400e6  # the axis counts days since 1970


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value at a time.

    Args:
        at_us: microseconds, UTC.
        low, high: its interval; None: it has none.
    """

    at_us: int
    value: float
    low: float | None = None
    high: float | None = None


def series_plot(
    name: str, title: str, unit: str, caption: str, lines: Mapping[str, Sequence[Point]], *, level: float | None = None
) -> Plot:
    """Return a line plot over time.

    Args:
        unit: label of the y axis.
        lines: points in order of time, by the label of the line; colours repeat after six lines.
        level: a reference value, drawn as a dotted line.
    """
    with draw_plot(title, "time (UTC)", unit, size=(7.2, 3.2)) as canvas:
        if level is not None:
            canvas.axes.axhline(level, linestyle=":", color="#808080")
        for i, (label, points) in enumerate(lines.items()):
            colour = COLOURS[i % len(COLOURS)]
            canvas.axes.plot(
                times([p.at_us for p in points]),
                [p.value for p in points],
                marker="o",
                markersize=3,
                color=colour,
                label=label,
            )
            bounded = [p for p in points if p.low is not None and p.high is not None]
            canvas.axes.fill_between(
                times([p.at_us for p in bounded]),
                [p.low for p in bounded if p.low is not None],
                [p.high for p in bounded if p.high is not None],
                color=colour,
                alpha=0.2,
                linewidth=0,
            )
        times_us = {point.at_us for points in lines.values() for point in points}
        if len(times_us) == 1:  # a single time: show the day around it
            day = times_us.pop() / _DAY_US
            canvas.axes.set_xlim(day - 0.5, day + 0.5)
    return Plot(name=name, title=title, caption=caption, svg=canvas.svg)


def times(at_us: Sequence[int]) -> npt.NDArray[np.datetime64]:
    """Return times as numpy datetimes for the x axis."""
    return np.array(at_us, dtype="datetime64[us]")
