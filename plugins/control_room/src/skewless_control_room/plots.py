"""Plots as SVG that the style sheet of a page, or of a file, colours: readable in light and dark, without scripts.

All text is escaped. Numbers that are not finite, or beyond 1e300, leave a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeGuard

from markupsafe import Markup, escape

from skewless.contract.clock import from_us

_WIDTH, _HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 26, 40
_BAR, _NAME_WIDTH = 20, 190
_LANE = 26
_LEGEND_ROW = 16
_MOST_POINTS = 500
_MOST_BARS = 40
_TICKS = 4
_LARGEST = 1e300  # the span between two larger numbers may be infinite; a comparison with NaN is false
_STYLES = 6
# Okabe and Ito (2008): colour-blind readers can distinguish them.
_COLOURS = ("#0072b2", "#b86f00", "#00785a", "#b34700", "#2b7fb0", "#a4578a")
_FILE_STYLE = "".join((
    "svg{color:#222}@media (prefers-color-scheme:dark){svg{color:#ddd}}",
    "text{fill:currentColor;font:11px system-ui,sans-serif}.axis{stroke:#808080;stroke-opacity:.4}",
    ".line{fill:none;stroke-width:1.8}.band{opacity:.22}.limit{stroke:currentColor;stroke-dasharray:4 3}",
    *(f".s{i}{{stroke:{colour}}}.f{i}{{fill:{colour}}}" for i, colour in enumerate(_COLOURS, 1)),
))  # fmt: skip
_DAY_US = timedelta(days=1) // timedelta(microseconds=1)
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" '
Numbers = Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class TimeCurve:
    """Values over time.

    Args:
        name: in the legend.
        times: microseconds since 1970, ascending.
        values: one per time; None: a gap.
        low, high: an interval around each value; empty: none.
    """

    name: str
    times: Sequence[int]
    values: Numbers
    low: Numbers = ()
    high: Numbers = ()


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points that are joined in their order, such as those of a ROC curve.

    Args:
        name: in the legend.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Span:
    """Something that took a while.

    Args:
        until_us: its end; None: it is in progress.
        kind: ``good``, ``warning``, ``bad``, ``unknown`` or ``plain``, its colour.
        text: its tooltip.
        link: path of the page about it; empty: none.
    """

    since_us: int
    until_us: int | None
    kind: str
    text: str
    link: str = ""


def plot_lines(series: Sequence[TimeCurve], *, unit: str, limit: float | None = None, label: str) -> Markup:
    """Return lines over time, with their intervals as bands.

    Args:
        unit: of the values, at the axis.
        limit: a value drawn as a dashed line; None: none.
        label: what a screen reader says.
    """
    drawn = [item for item in series if any(map(_is_number, item.values))]
    times = [time for item in drawn for time in item.times]
    numbers = [n for item in drawn for n in (*item.values, *item.low, *item.high) if _is_number(n)]
    if not times:
        return _frame([_text(_WIDTH / 2, _HEIGHT / 2, "no values", "middle")], _HEIGHT, label)
    values = [*numbers, *([] if limit is None else [limit])]
    x = _scale(min(times), max(times), _LEFT, _WIDTH - _RIGHT)
    y, parts = _value_axis(min(values), max(values), unit)
    parts += _time_axis(min(times), max(times), x, _HEIGHT - _BOTTOM)
    for index, item in enumerate(drawn):
        style = index % _STYLES + 1
        parts += _band(item, x, y, style)
        parts += _paths(item, x, y, style)
    if limit is not None:
        parts.append(_level(y(limit), "limit"))
    return _frame_with_legend(parts, [item.name for item in drawn], label)


def plot_curves(curves: Sequence[Curve], *, x_unit: str, y_unit: str, label: str) -> Markup:
    """Return curves of one number against another.

    Args:
        x_unit, y_unit: at the axes.
        label: what a screen reader says.
    """
    points = [point for curve in curves for point in zip(curve.x, curve.y, strict=True) if all(map(_is_number, point))]
    if not points:
        return _frame([_text(_WIDTH / 2, _HEIGHT / 2, "no values", "middle")], _HEIGHT, label)
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    x = _scale(left, right, _LEFT, _WIDTH - _RIGHT)
    y, parts = _value_axis(min(value for _, value in points), max(value for _, value in points), y_unit)
    parts += _number_axis(left, right, x, x_unit)
    for index, curve in enumerate(curves):
        path = "L".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(curve.x, curve.y, strict=True))
        parts.append(f'<path class="line s{index % _STYLES + 1}" d="M{path}"/>')
    return _frame_with_legend(parts, [curve.name for curve in curves], label)


def plot_histogram(edges: Sequence[float], named: Sequence[tuple[str, Numbers]], *, unit: str, label: str) -> Markup:
    """Return one or two distributions as steps, each as shares of its whole.

    Args:
        edges: of the bins, one more than values.
        named: names and shares between 0 and 1.
    """
    shares = [share for _, values in named for share in values if _is_number(share)]
    if not shares or len(edges) < 2:  # noqa: PLR2004 - a bin has two edges
        return _frame([_text(_WIDTH / 2, _HEIGHT / 2, "no values", "middle")], _HEIGHT, label)
    x = _scale(edges[0], edges[-1], _LEFT, _WIDTH - _RIGHT)
    y, parts = _value_axis(0.0, max(shares), "share")
    for index, (_, values) in enumerate(named):
        steps = [(edge, 0.0 if share is None else share) for edge, share in zip(edges, values, strict=False)]
        path = f"M{x(edges[0]):.1f},{y(0.0):.1f}"
        for (left, share), right in zip(steps, edges[1:], strict=False):
            path += f"L{x(left):.1f},{y(share):.1f}L{x(right):.1f},{y(share):.1f}"
        parts.append(f'<path class="line s{index + 1}" d="{path}L{x(edges[-1]):.1f},{y(0.0):.1f}"/>')
    parts += _number_axis(edges[0], edges[-1], x, unit)
    return _frame_with_legend(parts, [name for name, _ in named], label)


def plot_shares(rows: Sequence[Sequence[float]], *, x_unit: str, y_unit: str, label: str) -> Markup:
    """Return a table of shares between 0 and 1 as squares that are more opaque for a larger share; the first 40 rows.

    Args:
        x_unit, y_unit: what the columns and the rows are, by number.
    """
    side = min(_HEIGHT, _WIDTH - _LEFT - _RIGHT) / max(len(rows), 1)
    parts = [_text(4, 10, y_unit, "start", "soft")]
    for i, row in enumerate(rows[:_MOST_BARS]):
        top = _TOP + i * side
        parts.append(_text(_LEFT - 4, top + side / 2 + 4, str(i), "end"))
        for j, share in enumerate(row):
            left = _LEFT + j * side
            square = f'x="{left:.1f}" y="{top:.1f}" width="{side:.1f}" height="{side:.1f}"'
            parts.append(f'<rect class="f1" opacity="{share:.2f}" {square}/>')
            parts.append(_text(left + side / 2, top + side / 2 + 4, f"{share:.0%}", "middle"))
    bottom = _TOP + side * min(len(rows), _MOST_BARS)
    parts += [_text(_LEFT + (j + 0.5) * side, bottom + 14, str(j), "middle") for j in range(len(rows))]
    parts.append(_text(_WIDTH - _RIGHT, bottom + 28, x_unit, "end", "soft"))
    return _frame(parts, bottom + 32, label)


def plot_bars(named: Sequence[tuple[str, float | None]], *, unit: str, label: str) -> Markup:
    """Return a horizontal bar per name, to the left of zero if it is negative; the first 40.

    Args:
        named: names and values, in their order.
        unit: of the values.
    """
    shown = [(name, value) for name, value in named[:_MOST_BARS] if _is_number(value)]
    if not shown:
        return _frame([_text(_WIDTH / 2, 20, "no values", "middle")], 40, label)
    numbers = [value for _, value in shown]
    x = _scale(min(0.0, *numbers), max(0.0, *numbers), _NAME_WIDTH + 60, _WIDTH - 70)
    parts, zero = [], x(0.0)
    for row, (name, number) in enumerate(shown):
        top = row * _BAR + 4
        left, right = sorted((zero, x(number)))
        parts.append(_text(_NAME_WIDTH - 6, top + 12, _short(name), "end"))
        parts.append(
            f'<rect class="{"f1" if number >= 0 else "f2"}" x="{left:.1f}" y="{top}" '
            f'width="{max(right - left, 0.5):.1f}" height="{_BAR - 5}"><title>{escape(name)}: {number:.6g} '
            f"{escape(unit)}</title></rect>"
        )
        at, anchor = (right + 4, "start") if number >= 0 else (left - 4, "end")
        parts.append(_text(at, top + 12, f"{number:+.4g}", anchor))
    height = len(shown) * _BAR + 24
    parts.append(f'<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{height - 20}"/>')
    parts.append(_text(_WIDTH - _RIGHT, height - 6, unit, "end", "soft"))
    return _frame(parts, height, label)


def plot_timeline(lanes: Sequence[tuple[str, Sequence[Span]]], since_us: int, until_us: int, *, label: str) -> Markup:
    """Return spans of time in a lane per name; ``bad`` and ``warning`` ones are taller.

    Args:
        since_us, until_us: the period shown; spans are cut at its ends.
    """
    x = _scale(since_us, until_us, _NAME_WIDTH, _WIDTH - _RIGHT)
    parts: list[str] = []
    for row, (name, spans) in enumerate(lanes):
        top = row * _LANE + 4
        parts.append(_text(_NAME_WIDTH - 6, top + 13, _short(name), "end"))
        parts.append(f'<line class="axis" x1="{_NAME_WIDTH}" x2="{_WIDTH}" y1="{top + 21}" y2="{top + 21}"/>')
        for span in spans[:_MOST_POINTS]:
            left = x(max(span.since_us, since_us))
            right = x(min(until_us if span.until_us is None else span.until_us, until_us))
            # Not by colour alone: what needs a look is taller.
            inset = 0 if span.kind in {"bad", "warning"} else 4
            bar = (
                f'<rect class="f-{escape(span.kind)}" x="{left:.1f}" y="{top + inset}" '
                f'width="{max(right - left, 2.0):.1f}" height="{_LANE - 9 - 2 * inset}">'
                f"<title>{escape(span.text)}</title></rect>"
            )
            # Not a stop of the tab key: there may be hundreds, and a list of the page has the same links.
            parts.append(f'<a tabindex="-1" href="{escape(span.link)}">{bar}</a>' if span.link else bar)
    bottom = len(lanes) * _LANE + 6
    parts += _time_axis(since_us, until_us, x, bottom)
    return _frame(parts, bottom + 30, label, role="group")


def make_file(plot: Markup) -> str:
    """Return a plot as the text of a file, which needs no other one.

    >>> make_file(plot_bars([], unit="gain", label="Gain"))[:52]
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0'
    """
    head, _, rest = str(plot).partition(">")
    return f"{head.replace('<svg ', _SVG, 1)}><style>{_FILE_STYLE}</style>{rest}"


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and abs(value) <= _LARGEST


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = high - low or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _value_axis(low: float, high: float, unit: str) -> tuple[Callable[[float], float], list[str]]:
    step = _step((high - low) or abs(high) or 1.0)
    bottom, top = math.floor(low / step) * step, math.ceil(high / step) * step
    top = top if top > bottom else bottom + step
    y = _scale(bottom, top, _HEIGHT - _BOTTOM, _TOP)
    parts = [_text(4, 10, unit, "start", "soft")]
    for index in range(round((top - bottom) / step) + 1):
        value = bottom + index * step
        parts.append(_level(y(value), "axis"))
        parts.append(_text(_LEFT - 4, y(value) + 4, f"{value:.6g}", "end"))
    return y, parts


def _level(y: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _number_axis(left: float, right: float, x: Callable[[float], float], unit: str) -> list[str]:
    ends = ((left, "start"), ((left + right) / 2, "middle"), (right, "end"))
    labels = [_text(x(value), _HEIGHT - _BOTTOM + 14, f"{value:.4g}", anchor) for value, anchor in ends]
    return [*labels, _text(_WIDTH - _RIGHT, _HEIGHT - 6, unit, "end", "soft")]


def _step(span: float) -> float:
    rough = span / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)


def _time_axis(since_us: float, until_us: float, x: Callable[[float], float], bottom: float) -> list[str]:
    pattern = "%m-%d %H:%M" if until_us - since_us < 4 * _DAY_US else "%Y-%m-%d"
    parts = []
    for index in range(_TICKS + 1):
        time_us = int(since_us + (until_us - since_us) * index / _TICKS)
        anchor = "start" if index == 0 else "end" if index == _TICKS else "middle"
        parts.append(_text(x(time_us), bottom + 14, f"{from_us(time_us):{pattern}}", anchor))
        if since_us == until_us:
            break
    return [*parts, _text(_WIDTH - _RIGHT, bottom + 28, "UTC", "end", "soft")]


def _paths(item: TimeCurve, x: Callable[[float], float], y: Callable[[float], float], style: int) -> list[str]:
    path, pen, points = "", "M", []
    stride = max(1, len(item.times) // _MOST_POINTS)
    for time_us, value in list(zip(item.times, item.values, strict=True))[::stride]:
        if not _is_number(value):
            pen = "M"
            continue
        path += f"{pen}{x(time_us):.1f},{y(value):.1f}"
        pen = "L"
        points.append((time_us, value))
    dots = [
        f'<circle class="f{style}" cx="{x(at):.1f}" cy="{y(value):.1f}" r="2.2"><title>{escape(item.name)}, '
        f"{from_us(at):%Y-%m-%d %H:%M}: {value:.6g}</title></circle>"
        for at, value in points
        if len(points) <= 60  # noqa: PLR2004 - more would be a thick line
    ]
    return [f'<path class="line s{style}" d="{path}"/>', *dots]


def _band(item: TimeCurve, x: Callable[[float], float], y: Callable[[float], float], style: int) -> list[str]:
    if not item.low:
        return []
    rows = [
        (time, low, high)
        for time, low, high in zip(item.times, item.low, item.high, strict=True)
        if _is_number(low) and _is_number(high)
    ]
    upper = [f"{x(time):.1f},{y(high):.1f}" for time, _, high in rows]
    lower = [f"{x(time):.1f},{y(low):.1f}" for time, low, _ in reversed(rows)]
    return [f'<polygon class="band f{style}" points="{" ".join(upper + lower)}"/>'] if rows else []


def _frame_with_legend(parts: Sequence[str], names: Sequence[str], label: str) -> Markup:
    """Return a plot with its legend, which has as many rows as it needs."""
    legend, at, y = [], float(_LEFT), _HEIGHT - 5
    for index, name in enumerate(names):
        width = 34 + 6.2 * len(_short(name))
        if at + width > _WIDTH - _LEFT:
            at, y = float(_LEFT), y + _LEGEND_ROW
        style = index % _STYLES + 1
        legend.append(f'<line class="line s{style}" x1="{at}" x2="{at + 18}" y1="{y - 4}" y2="{y - 4}"/>')
        legend.append(_text(at + 22, y, _short(name), "start"))
        at += width
    return _frame([*parts, *legend], y + 5, label)


def _short(name: str) -> str:
    most = 28
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _frame(parts: Sequence[str], height: float, label: str, role: str = "img") -> Markup:
    # A picture must not have links in it.
    head = f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="{role}" aria-label="{escape(label)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")  # noqa: S704 - every text in it is escaped
