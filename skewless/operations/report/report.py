"""Builds the report with its glossary; a section that cannot be read shows its error, and the other sections stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from skewless.contract.clock import from_us
from skewless.contract.errors import SkewlessError
from skewless.contract.metrics import METRICS
from skewless.infra.packages.package import Package, open_package
from skewless.infra.pages import render_page
from skewless.operations.quality import quality
from skewless.operations.report import sections
from skewless.operations.report.blocks import Block, Report, Section, missing
from skewless.operations.report.history import decisions, life
from skewless.operations.report.sections import drift, evaluation, importance, versions
from skewless.operations.versions import open_champion
from skewless.training.plots.canvas import require_plots
from skewless.workspace import Workspace

TERMS: Mapping[str, str] = {
    "version": "One trained model; a number that grows with each training.",
    "trained": "When the version was trained.",
    "role": "Champion: it answers the traffic that no rollout claims. Challenger: it answers a share of the traffic."
    " Shadow: it scores the same requests, and its scores are not returned.",
    "traffic share": "Part of the entities that the version answers by the current traffic policy.",
    "predictions": "Number of the version's predictions in the log of the last windows.",
    "test metric": "The gate's metric on the test period of its training: rows that the version never saw.",
    "live metric": "The same metric on predictions with a known outcome.",
    "95 % interval": "Bootstrap interval of the live metric: it covers the true value in 95 of 100 cases.",
    "expected metric": "Estimate of the metric for all predictions, from the scores alone, before labels are known.",
    "labelled": "Share of the predictions with a known outcome.",
    "time": "UTC.",
    "change": "Kind of the change.",
    "to": "The versions after the change, with their share of the traffic.",
    "cause": "Recorded reason of the change.",
    "evidence": "The numbers behind the decision.",
    "passed": "The version passed its gate.",
    "refused": "The version did not pass its gate: it receives no traffic.",
    "traffic": "A new traffic policy: the versions have other shares of the traffic.",
    "promoted": "The challenger became champion: it answers all traffic.",
    "rolled back": "The champion receives all traffic again, the challenger none.",
    "alias champion": "The alias `champion` moved to a version: servers load it, gates compare versions with it.",
    "canary": "The challenger answers a small share of the traffic, which grows while all guardrails hold.",
    "shadow": "The challenger scores the same requests; its scores are not returned.",
    "ab": "A/B test: the challenger answers a fixed share until the outcomes decide.",
    "guardrail": "A limit for the challenger against the champion over the same time; a breach rolls the rollout back.",
    "champion": "Value of the champion.",
    "challenger": "Value of the challenger.",
    "worse by at least": "Lower bound of the difference to the champion; negative: the challenger may be better. The"
    " guardrail is breached if this is above the limit.",
    "limit": "Declared limit of the difference.",
    "outcome": "Held: not above the limit. Breached: above the limit. Not decided yet: too few requests.",
    "errors": "Share of requests that failed.",
    "latency": "99th percentile of the request latency (p99); compared as a ratio.",
    "latency_median": "Median of the request latency; compared as a ratio.",
    "score_shift": "Mean score of each version; compared by the PSI between their scores.",
    "missing": "Share of feature values that were missing.",
    "quality": "The gate's metric on predictions with a known outcome, or its mean loss.",
    "business": "Mean business value of the outcomes.",
    "feature": "One input of the model; VIEW__NAME.",
    "PSI": "Population stability index: the distance between the histograms of live values and of training. Below 0.1"
    " they are similar; above 0.2 it is drift, unless it is within chance.",
    "KS": "Kolmogorov-Smirnov distance: the largest gap between the two cumulative shares, 0 to 1.",
    "JS": "Jensen-Shannon distance: 0 for equal distributions, 1 for distributions without overlap.",
    "metric": "Quality metric on the test period of the training.",
    "model": "Metric of the model.",
    "constraint": "Limit that the training library kept, such as a feature that may only raise the margin.",
    "constant prediction": "Metric of a constant score, the base rate.",
    "p": "Probability of such a distance without drift, adjusted for the number of features.",
    "missing now": "Share of nulls in live values.",
    "missing in training": "Share of nulls in training values.",
    "drifted": "Whether the distance is above its limit and beyond chance.",
    "view": "A table of features of one entity.",
    "latest row": "Event time of the latest accepted row.",
    "age": "Time since the event time of the latest row.",
    "freshness limit": "Declared age from which rows are stale.",
    "last run": "End of the last materialization of the view.",
    "compared": "Number of entities whose online states were compared with the log.",
    "mismatches": "Number of entities that differ in a bit.",
    "job": "Name of the scheduled job.",
    "state": "State in which the run ended.",
    "took": "Duration of the run.",
    "result": "Result of the run, or its error.",
    "alert": "Kind of the alert.",
    "subject": "View, model or process of the alert.",
    "since": "Time when the alert opened.",
    "message": "Problem.",
    "base_rate": "Share of positives among all rows.",
    "rows": "Rows that were evaluated.",
    "parity": "Comparison of the online store with the accepted log, value by value.",
    "replay": "Logged predictions, recomputed from the accepted log and compared bit for bit.",
    "contribution": "Part of the margin of one prediction that a feature adds (TreeSHAP). The margin is the sum of all"
    " contributions and the bias.",
    "margin": "Raw output of the model, before it becomes a probability.",
    **{name: metric.words for name, metric in METRICS.items()},
}


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
