"""Line plots as SVG, written by hand: no plotting library is needed for four lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 380, 260, 56, 34, 14, 44
_COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One plot; both axes are linear and begin at zero.

    Args:
        lines: legend -> one value per position of ``x``.
        bands: legend of a line -> half the height of a band around each of its values.
        ticks: what stands below each position; none: the position itself.
    """

    title: str
    x: Sequence[float]
    x_title: str
    lines: Mapping[str, Sequence[float]]
    ticks: Sequence[str] = ()
    bands: Mapping[str, Sequence[float]] = field(default_factory=dict)


def draw(panels: Sequence[Panel], columns: int = 2) -> str:
    """Return an SVG document with the panels in rows.

    >>> draw([Panel(title="t", x=[1, 2], x_title="x", lines={"a": [1, 3]})]).count("<polyline")
    1
    """
    rows = -(-len(panels) // columns)
    size = f'width="{columns * _WIDTH}" height="{rows * _HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        parts.append(f'<g transform="translate({column * _WIDTH},{row * _HEIGHT})">{_panel(panel)}</g>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel) -> str:
    top = max((value for line in panel.lines.values() for value in line), default=1.0) or 1.0
    right = max(panel.x)
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return round(_LEFT + x / right * width, 1), round(_TOP + height - y / top * height, 1)

    left, bottom = at(0, 0)
    parts = [
        _text(_LEFT, 16, panel.title, "font-weight='bold'"),
        f'<path d="M{left},{_TOP}V{bottom}H{at(right, 0)[0]}" fill="none" stroke="#444"/>',
        _text(_LEFT + width / 2, _HEIGHT - 8, panel.x_title, "text-anchor='middle'"),
    ]
    ticks = panel.ticks or [f"{x:g}" for x in panel.x]
    parts += [
        _text(at(x, 0)[0], bottom + 14, tick, "text-anchor='middle'") for x, tick in zip(panel.x, ticks, strict=True)
    ]
    parts += [_text(left - 6, at(0, y)[1] + 4, f"{y:.3g}", "text-anchor='end'") for y in (0, top / 2, top)]
    for place, (name, values) in enumerate(panel.lines.items()):
        color = _COLORS[place % len(_COLORS)]
        points = [at(x, y) for x, y in zip(panel.x, values, strict=True)]
        path = " ".join(f"{x},{y}" for x, y in points)
        if name in panel.bands:
            rows = list(zip(panel.x, values, panel.bands[name], strict=True))
            upper = [at(x, y + half) for x, y, half in rows]
            corners = " ".join(f"{x},{y}" for x, y in upper + [at(x, y - half) for x, y, half in reversed(rows)])
            parts.append(f'<polygon points="{corners}" fill="{color}" opacity="0.15"/>')
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.6"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{color}"/>' for x, y in points]
        parts.append(_text(_LEFT + 8, _TOP + 8 + 14 * place, name, f"fill='{color}'"))
    return "".join(parts)


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(text)}</text>'
