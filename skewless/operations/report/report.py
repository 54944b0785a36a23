"""Builds the report; a section that cannot be read shows its error, and the other sections stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.contract.clock import from_us
from skewless.contract.errors import PackageError, SkewlessError
from skewless.operations.report.blocks import Paragraph, Report, Section
from skewless.operations.report.glossary import TERMS

if TYPE_CHECKING:
    from skewless.infra.packages.package import Package
    from skewless.workspace import Workspace

_WINDOWS = 30
_ALWAYS = ("parity", "replay", "contribution", "margin", "shadow", "canary", "ab")


def write_report(project: Workspace, models: Sequence[str] = (), out: Path | None = None) -> Report:
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
    from skewless.infra.pages import render_page

    return render_page(__package__, "page.html", report=report)


def build(project: Workspace, models: Sequence[str] = ()) -> Report:
    """Return the report on models and project; changes nothing.

    Args:
        models: names; empty: all of the plan.

    Raises:
        RequestError: the plan has no such model.
        PlaceError: the extra ``report`` is not installed.
    """
    from skewless.training.plots.canvas import require_plots

    require_plots()
    names = [project.applied.model(name).name for name in models or [spec.name for spec in project.models]]
    parts = {f"Model {name}": list(_model(project, name)) for name in names}
    parts["Project"] = list(_project(project))
    made_at = f"{from_us(project.clock.now_us()):%Y-%m-%d %H:%M:%S} UTC"
    report = Report(project=project.applied.plan.project, made_at=made_at, parts=parts)
    used = report.used_terms().union(_ALWAYS)
    return replace(report, glossary={term: text for term, text in TERMS.items() if term in used})


def _model(project: Workspace, name: str) -> Iterator[Section]:
    from skewless.operations.quality import quality
    from skewless.operations.report import decisions, life, models

    watch = project.applied.model(name).watch
    window_us = int(watch.window.total_seconds() * 1_000_000)
    read_quality = cache(partial(quality, project, name))
    yield _section_or_error("Traffic and quality over time", lambda: life.life_section(project, name, read_quality()))
    yield _section_or_error("Versions", lambda: models.versions_section(project, name, read_quality()))
    yield _section_or_error("Decisions", lambda: decisions.decisions_section(project, name))
    yield _section_or_error("Drift", lambda: models.drift_section(project, name))
    yield _section_or_error("Feature importance", lambda: models.importance_section(project, name, window_us, _WINDOWS))
    yield _section_or_error("Evaluation", lambda: models.evaluation_section(_champion(project, name)))


def _project(project: Workspace) -> Iterator[Section]:
    from skewless.operations.report import proofs

    yield _section_or_error("Proof: parity and replay", lambda: proofs.proof_section(project))
    yield _section_or_error("Data checks", lambda: proofs.checks_section(project))
    yield _section_or_error("Freshness", lambda: proofs.freshness_section(project))
    yield _section_or_error("Alerts", lambda: proofs.alerts_section(project))
    yield _section_or_error("Runs", lambda: proofs.runs_section(project))


def _section_or_error(title: str, make: Callable[[], Section]) -> Section:
    try:
        return make()
    except SkewlessError as error:
        return Section(title=title, blocks=[Paragraph(text=error.sentence(), tone="missing")])


def _champion(project: Workspace, name: str) -> Package:
    from skewless.infra.packages.package import open_package

    policy = project.store.traffic.get(name)
    version = policy.champion if policy else project.store.aliases.get(name, "champion")
    if version is None:
        raise PackageError(f"model {name!r}", "has no champion", fix=f"run `skewless train {name}`")
    return open_package(project.store, name, version)
