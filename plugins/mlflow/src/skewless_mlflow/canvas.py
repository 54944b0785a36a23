"""The common style of all plots, and their export as SVG that is readable in light and dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from skewless.contract.errors import PlaceError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Okabe and Ito (2008): colour-blind readers can distinguish them.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
_INK = "#010203"  # placeholder that becomes the reader's text colour
_STYLE = (
    "<style>svg.plot{color:#222}@media (prefers-color-scheme:dark){svg.plot{color:#ddd}}"
    "svg.plot text{font-family:system-ui,sans-serif}</style>"
)


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot with its explanation.

    Args:
        name: file name without ``.svg``.
        caption: explains what the plot shows and how to read it.
        svg: an ``<svg>`` element, for a file or within a page.
    """

    name: str
    title: str
    caption: str
    svg: str


@dataclass(kw_only=True)
class Canvas:
    """The axes of a plot, and its SVG text.

    Args:
        lower_axes: further axes below the first, with the same x axis.
        svg: the SVG text, set after drawing.
    """

    title: str
    axes: Axes
    lower_axes: tuple[Axes, ...] = ()
    svg: str = ""

    def as_plot(self, name: str, caption: str) -> Plot:
        """Return the plot after drawing."""
        return Plot(name=name, title=self.title, caption=caption, svg=self.svg)


def can_plot() -> bool:
    """Return whether the extra for plots is installed."""
    return find_spec("matplotlib") is not None


def require_plots() -> None:
    """Check that the extra for plots is installed.

    Raises:
        PlaceError: it is not installed.
    """
    if not can_plot():
        raise PlaceError("plots", "need the extra `report`", fix='install "skewless[report]"')


@contextmanager
def draw_plot(
    title: str, x: str, y: str, *lower_labels: str, size: tuple[float, float] = (5.2, 3.6)
) -> Iterator[Canvas]:
    """Yield axes to draw on; ``svg`` is set after the block.

    Args:
        x, y: labels of the axes, with units.
        lower_labels: y label of each further pair of axes.
        size: inches.

    Raises:
        PlaceError: the extra is not installed.
    """
    require_plots()
    from matplotlib import rc_context  # noqa: PLC0415 - of an extra
    from matplotlib.figure import Figure  # noqa: PLC0415 - of an extra

    with rc_context(_style(title)):
        figure = Figure(figsize=size, layout="constrained")
        axes, *more = figure.subplots(1 + len(lower_labels), sharex=True, squeeze=False)[:, 0]
        for each, label in zip((axes, *more), (y, *lower_labels), strict=True):
            each.set_ylabel(label)
            each.spines[["top", "right"]].set_visible(False)
        (axes, *more)[-1].set_xlabel(x)
        axes.set_title(title)
        canvas = Canvas(title=title, axes=axes, lower_axes=tuple(more))
        yield canvas
        if axes.get_legend() is None and axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
        canvas.svg = _svg(figure, title)


def _style(title: str) -> dict[Any, Any]:
    text_settings = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    return dict.fromkeys(text_settings, _INK) | {
        "svg.fonttype": "none",
        "svg.hashsalt": title,  # equal values give equal SVG
        "text.parse_math": False,
        "date.converter": "concise",
        "font.size": 9.0,
        "axes.titlesize": 10.0,
        "axes.grid": True,
        "grid.color": "#808080",
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
    }


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' width="[^"]*pt" height="[^"]*pt"', "", text, count=1)
    head, _, rest = text.partition(">")
    return f'{head} class="plot" role="img" aria-label="{escape(title)}">{_STYLE}{rest}'
