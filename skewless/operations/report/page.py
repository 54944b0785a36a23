"""From a report to one HTML file: styles and plots inside, nothing from elsewhere, no scripts."""

from __future__ import annotations

from skewless.operations.report.blocks import Report


def render(report: Report) -> str:
    """Return the page; whatever was read from logs is escaped, but for the plots."""
    from skewless.infra.pages import render_page

    return render_page(__package__, "page.html", report=report)
