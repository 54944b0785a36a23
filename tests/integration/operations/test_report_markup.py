"""Names, causes and errors of a report are text on its page and in its plots, whatever they hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.operations.report.blocks import FoldedCell, Paragraph, PlotBlock, Report, Section, TableBlock
from skewless.operations.report.report import render
from skewless.training.plots.canvas import Point, series_plot
from skewless.training.plots.evaluation import importance_plot
from skewless.training.plots.version_history import DecisionMark, TrafficShares, VersionHistory, history_plot
from tests.worlds.hostile_text import MARKED_UP, MARKUP, Browser


def report_of(a: str, b: str, c: str, svg: str) -> Report:
    table = TableBlock(title=a, columns=(b, "cause", a), rows=[(c, a, b), (a, b, c)], marked=frozenset({1}), terms=b)
    folded = TableBlock(title=c, columns=(a,), rows=[(FoldedCell(summary=b, table=table),)])
    blocks: list[TableBlock | PlotBlock | Paragraph] = [
        table,
        folded,
        Paragraph(text=a, link="index.html"),
        PlotBlock(title=b, caption=c, svg=svg),
    ]
    return Report(project=a, made_at=b, parts={c: [Section(title=a, blocks=blocks)]}, glossary={b: c, c: a})


@given(st.lists(MARKED_UP, min_size=3, max_size=3))
def test_no_value_of_a_report_is_more_than_text(values: list[str]) -> None:
    page = render(report_of(values[0], values[1], values[2], "<svg></svg>"))
    assert Browser(page).dangers == []


@pytest.mark.parametrize("markup", MARKUP)
def test_markup_is_shown_as_it_came(markup: str) -> None:
    assert markup in Browser(render(report_of(markup, "b", "c", ""))).text


def test_no_name_is_more_than_text_in_a_plot() -> None:
    names = [markup for markup in MARKUP if markup.isascii()]
    one, two = names[0], names[2]
    points = [Point(at_us=0, value=1.0, low=0.5, high=1.5), Point(at_us=10**9, value=2.0)]
    life = VersionHistory(
        metric=one,
        versions=[one, two],
        shares=[TrafficShares(at_us=0, of={one: 0.5, two: 0.5})],
        marks=[DecisionMark(at_us=5, event="promoted", version=one)],
        until_us=10**9,
        quality={one: points},
        tested={one: 1.0},
    )
    for plot in (
        importance_plot(dict.fromkeys(names, 1.0), one, two),
        history_plot(life),
        series_plot("n", one, two, one, {one: points, two: points}),
    ):
        found = Browser(render(report_of("a", "b", plot.caption, plot.svg)))
        assert found.dangers == [], plot.name
        assert {link[0] for link in found.links} <= {"#", "i"}, "nothing but parts of the page and its index"
