"""Builds the report; a section that cannot be read shows its error, and the other sections stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from skewless.contract.clock import from_us
from skewless.contract.errors import SkewlessError
from skewless.infra.packages.package import Package, open_package
from skewless.infra.pages import render_page
from skewless.operations.quality import quality
from skewless.operations.report import sections
from skewless.operations.report.blocks import Block, Report, Section, missing
from skewless.operations.report.glossary import TERMS
from skewless.operations.report.history import decisions, life
from skewless.operations.report.sections import drift, evaluation, importance, versions
from skewless.operations.versions import open_champion
from skewless.training.plots.canvas import require_plots
from skewless.workspace import Workspace

_WINDOWS = 30
_ALWAYS = ("parity", "replay", "contribution", "margin", "shadow", "canary", "ab")


def write_report(project: Workspace, models: Sequence[str] = (), *, out: Path | None = None) -> Report:
    """Write the report to one HTML file with its styles and plots, without external files and scripts.

    Args:
        out: the file; None: ``report.html`` in the state folder.

    Raises: as ``build``.
    """
    report, file = build(project, models), out or project.state / "report.html"
    file.write_text(render(report), encoding="utf-8")
    return replace(report, file=file)


def render(report: Report) -> str:
    """Return the page; texts from logs are escaped, plots are trusted."""
    return render_page(__package__, "page.html", report=report)


def build(project: Workspace, models: Sequence[str] = ()) -> Report:
    """Return the report on models and project; changes nothing.

    Args:
        models: names; empty: all of the plan.

    Raises:
        RequestError: the plan has no such model.
        PlaceError: the extra ``report`` is not installed.
    """
    require_plots()
    names = [project.applied.model(name).name for name in models or [spec.name for spec in project.models]]
    parts = {f"Model {name}": _model(project, name) for name in names}
    parts["Project"] = _project(project)
    made_at = f"{from_us(project.clock.now_us()):%Y-%m-%d %H:%M:%S} UTC"
    report = Report(project=project.applied.plan.project, made_at=made_at, parts=parts)
    used = report.used_terms().union(_ALWAYS)
    return replace(report, glossary={term: text for term, text in TERMS.items() if term in used})


def _model(project: Workspace, name: str) -> list[Section]:
    watch = project.applied.model(name).watch
    window_us = int(watch.window.total_seconds() * 1_000_000)
    read_quality = cache(partial(quality, project, name))
    sections = [
        _section("Traffic and quality over time", lambda: life(project, name, read_quality())),
        _section("Versions", lambda: versions(project, name, read_quality())),
        _section("Decisions", lambda: decisions(project, name)),
        _section("Drift", lambda: drift(project, name)),
        _section("Feature importance", lambda: importance(project, name, window_us, _WINDOWS)),
    ]
    try:
        champion = _champion(project, name)
    except SkewlessError as error:
        return [*sections, Section(title="Evaluation", blocks=[missing(error.sentence())])]
    title = f"Evaluation of {champion.version} on its test period"
    return [*sections, _section(title, lambda: evaluation(champion))]


def _project(project: Workspace) -> list[Section]:
    return [
        _section("Proof: parity and replay", lambda: sections.proof(project)),
        _section("Data checks", lambda: sections.checks(project)),
        _section("Freshness", lambda: sections.freshness(project)),
        _section("Alerts", lambda: sections.alerts(project)),
        _section("Runs", lambda: sections.runs(project)),
    ]


def _section(title: str, read: Callable[[], Iterable[Block]]) -> Section:
    try:
        return Section(title=title, blocks=list(read()))
    except SkewlessError as error:
        return Section(title=title, blocks=[missing(error.sentence())])


def _champion(project: Workspace, name: str) -> Package:
    policy = project.store.traffic.get(name)
    return open_package(project.store, name, policy.champion) if policy else open_champion(project, name)
