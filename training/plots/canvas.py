"""What all plots share: their look, and their way to SVG that is read on light and on dark ground."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from skewless.contract.errors import PlaceError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
_INK = "#010203"  # stands for the reader's own text colour
_STYLE = (
    "<style>svg.plot{color:#222}@media (prefers-color-scheme:dark){svg.plot{color:#ddd}}"
    "svg.plot text{font-family:system-ui,sans-serif}</style>"
)


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot that explains itself.

    Args:
        name: file name without ``.svg``.
        caption: what it shows and how to read it, each term in plain words.
        svg: an ``<svg>`` element, alone or within a page.
    """

    name: str
    title: str
    caption: str
    svg: str


@dataclass(kw_only=True)
class Canvas:
    """Axes that are being drawn on, and what they became.

    Args:
        beneath: further axes under the first, with the same horizontal one.
        svg: the text, once the drawing is done.
    """

    axes: Axes
    beneath: tuple[Axes, ...] = ()
    svg: str = field(default="")


def can_plot() -> bool:
    """Say whether the extra is installed that plots need."""
    return find_spec("matplotlib") is not None


def require_library() -> None:
    """Refuse to go on without the extra.

    Raises:
        PlaceError: it is not installed.
    """
    if not can_plot():
        raise PlaceError("plots", "need the extra `report`", fix='install "skewless[report]"')


@contextmanager
def drawn(title: str, x: str, y: str, *beneath: str, size: tuple[float, float] = (5.2, 3.6)) -> Iterator[Canvas]:
    """Yield axes to draw on; ``svg`` is there once the block is left.

    Args:
        x, y: labels of the axes, with units.
        beneath: label of the upright axis of each further pair of axes.
        size: inches.

    Raises:
        PlaceError: the extra is not installed.
    """
    require_library()
    from matplotlib import rc_context  # noqa: PLC0415 - of an extra
    from matplotlib.figure import Figure  # noqa: PLC0415 - of an extra

    with rc_context(_look(title)):
        figure = Figure(figsize=size, layout="constrained")
        axes, *more = figure.subplots(1 + len(beneath), sharex=True, squeeze=False)[:, 0]
        for each, label in zip((axes, *more), (y, *beneath), strict=True):
            each.set_ylabel(label)
            each.spines[["top", "right"]].set_visible(False)
        (axes, *more)[-1].set_xlabel(x)
        axes.set_title(title)
        canvas = Canvas(axes=axes, beneath=tuple(more))
        yield canvas
        if axes.get_legend() is None and axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
        canvas.svg = _svg(figure, title)


def _look(title: str) -> dict[Any, Any]:
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    return dict.fromkeys(inked, _INK) | {
        "svg.fonttype": "none",
        "svg.hashsalt": title,  # the same values give the same text
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
    return f'{head} class="plot" role="img" aria-label="{_escaped(title)}">{_STYLE}{rest}'


def _escaped(title: str) -> str:
    return title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
