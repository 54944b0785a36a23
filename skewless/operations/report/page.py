"""From a report to one HTML file: styles and plots inside, nothing from elsewhere, no scripts."""

from __future__ import annotations

from importlib.resources import files

from skewless.operations.report.blocks import Report


def render(report: Report) -> str:
    """Return the page; whatever was read from logs is escaped, but for the plots."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(report=report)
