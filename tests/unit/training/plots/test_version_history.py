"""The plot of a model's life shows who answered whom, and what was decided."""

from __future__ import annotations

import re

import numpy as np

from skewless.training.plots.canvas import Point
from skewless.training.plots.version_history import DecisionMark, TrafficShares, VersionHistory, history_plot

DAY = 86_400_000_000
LIFE = VersionHistory(
    metric="auc",
    versions=["000001", "000002"],
    shares=[
        TrafficShares(at_us=0, of={"000001": 1.0}),
        TrafficShares(at_us=2 * DAY, of={"000001": 0.75, "000002": 0.25}),
    ],
    marks=[DecisionMark(at_us=DAY, event="trained", version="000002")],
    until_us=4 * DAY,
    quality={"000001": [Point(at_us=DAY, value=0.7, low=0.6, high=0.8), Point(at_us=3 * DAY, value=0.7)]},
    tested={"000001": 0.72},
)


def words(svg: str) -> set[str]:
    return set(re.findall(r"<text[^>]*>([^<]+)</text>", svg))


def test_shares_are_stacked_steps() -> None:
    """The first version's area falls by a quarter of its height halfway through the time."""
    path = re.search(r'"FillBetweenPolyCollection_1">.*?d="([^"]+)"', history_plot(LIFE).svg, flags=re.DOTALL)
    assert path is not None
    x, y = np.array([[float(n) for n in pair] for pair in re.findall(r"([\d.]+) ([\d.]+)", path[1])]).T
    whole, left = y.max() - y.min(), x.min()
    early = y[np.isclose(x, left)]
    late = y[np.isclose(x, x.max())]
    assert np.isclose((late.max() - late.min()) / (early.max() - early.min()), 0.75, rtol=1e-3)
    assert np.isclose(early.max() - early.min(), whole)
    assert np.isclose((x + 0.0)[~np.isclose(x, left) & ~np.isclose(x, x.max())], (left + x.max()) / 2, rtol=1e-3).all()


def test_it_names_versions_decisions_and_metric() -> None:
    plot = history_plot(LIFE)
    assert {"000001", "000002", "trained", "live auc", "share of the entities"} <= words(plot.svg)
    assert not {"promoted", "rolled back"} & words(plot.svg)


def test_without_outcomes_there_is_the_traffic_alone() -> None:
    plot = history_plot(VersionHistory(**{**vars(LIFE), "quality": {}}))
    assert "live auc" not in words(plot.svg)
    assert "Beneath" not in plot.caption
