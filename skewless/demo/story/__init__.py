"""``skewless demo --drift``: weeks of a model on real flights, with injected faults."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from skewless.contract.clock import from_us
from skewless.demo.processes import serving
from skewless.demo.stages import replay
from skewless.demo.story.story_project import StoryProject
from skewless.demo.story.weeks import RunTimeline, Weeks
from skewless.demo.tour_state import HOUR_US, TourState, log_to_file
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.labels import find_servable, read_labels
from skewless.operations.quality import labelled_log
from skewless.operations.rollout import begin_rollout
from skewless.operations.scheduler import Invoke, hold_term
from skewless.project import Project
from skewless.training.train import train
from skewless.validation.evaluation.evaluation import evaluate

_MICROSECOND = timedelta(microseconds=1)
_FAULT_START, _FAULT_LENGTH = timedelta(days=10, hours=6), timedelta(hours=12)
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US
Weekly = Sequence[Mapping[str, Any]]


class StorySpan(NamedTuple):
    """The length of the story in days, and the weeks of flights before it."""

    days: int
    after: int


def run_story(repo: Path, invoke: Invoke, *, days: int, after: int) -> dict[str, Any]:
    """Run weeks of flights with one model, hour by hour; return the facts.

    All started processes are stopped. Log lines go to a file.

    Args:
        repo: the flights' repo; the story runs on a copy of it.
        invoke: runs a command in this process.
        days: length of the story.
        after: weeks of flights before its first day.

    Raises:
        SkewlessError: a stage failed; the error has the fix.
    """
    start = time.perf_counter()
    story = StoryProject.create(repo)
    tour = TourState(project=Project(story.repo), console=Console())
    try:
        with log_to_file(tour.console, story.repo / "demo.log"):
            _play(tour, story, StorySpan(days=days, after=after), invoke)
    finally:
        tour.project.close()
    tour.facts["seconds"] = round(time.perf_counter() - start, 1)
    return tour.facts


def _play(tour: TourState, story: StoryProject, span: StorySpan, invoke: Invoke) -> None:
    project = tour.project
    project.apply()
    spec, control = project.models
    rows = _rows(project)
    begin = int(pc.min(rows[TIME]).as_py()) // WEEK_US * WEEK_US + span.after * WEEK_US
    end = begin + span.days * DAY_US
    tour.clock.set(begin - 2 * HOUR_US)
    _prepare(tour)
    title = f"{span.days} days from {from_us(begin):%Y-%m-%d}, hour by hour"
    with serving(tour) as client, tour.stage(title) as print_line:
        traffic, aliases = project.store.traffic, project.store.aliases
        timeline = RunTimeline(model=spec.name, traffic=traffic, aliases=aliases, on_line=print_line)
        with hold_term(project, invoke, timeline.record_run) as (term, _):
            weeks = Weeks(
                tour=tour,
                client=client,
                term=term,
                timeline=timeline,
                model=spec.name,
                control=control.name,
                rows=rows,
                feature=story.defect.feature,
            )
            fault_us = begin + _FAULT_START // _MICROSECOND
            repair_us = fault_us + _FAULT_LENGTH // _MICROSECOND
            hours = story.inject_fault(fault_us, _FAULT_LENGTH)
            weeks.run(begin, fault_us)
            timeline.add(fault_us, "injected", f"{hours} {story.defect.wrong}")
            weeks.run(fault_us, repair_us)
            story.repair()
            timeline.add(repair_us, "injected", story.defect.repaired)
            _run_to_end(weeks, repair_us, end)
    _close(tour, weeks, begin, end)


def _run_to_end(weeks: Weeks, since_us: int, until_us: int) -> None:
    """Run to the end; a day after a second version has become champion, begin the rollout of a bad version."""
    is_sent = False
    for day_us in range(since_us, until_us, DAY_US):
        if not is_sent and weeks.is_settled:
            version = _begin_bad_rollout(weeks.tour.project, weeks.model)
            text = f"version {version}, trained on inverted labels, begins its rollout without a gate"
            weeks.timeline.add(day_us, "injected", text)
            weeks.record_changes()
            is_sent = True
        weeks.run(day_us, min(day_us + DAY_US, until_us))


def _begin_bad_rollout(project: Project, model: str) -> str:
    """Train a version on inverted labels, and begin its rollout without a gate; return the version."""
    dataset, spec = project.training_set(model), project.applied.model(model)
    threads = project.settings.threads or os.cpu_count() or 1
    inverted = replace(dataset, labels=1.0 - dataset.labels)
    trained = train(inverted, spec, project.store, threads=threads, now_us=project.clock.now_us())
    begin_rollout(project, model, trained.package.version)
    return trained.package.version


def _rows(project: Project) -> pa.Table:
    spec = project.models[0]
    plan = project.applied.plan.select_service(spec.service)
    rows = read_labels(project.connection, project.repo, plan, spec)
    return rows.filter(pa.array(find_servable(plan.request, rows))).sort_by(TIME)


def _prepare(tour: TourState) -> None:
    with tour.stage("Source rows -> log -> online store; first versions") as print_line:
        for item in tour.project.materialize():
            print_line(f"{item.view}: {item.accepted:,} rows accepted, {item.written:,} keys")
        for spec in tour.project.models:
            report = tour.project.train(spec.name)
            print_line(f"{spec.name} {report.trained.package.version}: {report.decision.reason}")


def _close(tour: TourState, weeks: Weeks, begin: int, end: int) -> None:
    timeline = weeks.timeline
    tour.facts |= {
        "predictions": weeks.predictions,
        "outcomes": weeks.outcomes_sent,
        "spoilt_feature": [min(values), max(values)]
        if (values := [value for value in weeks.values if value is not None])
        else [],
        "runs": {f"{job} {state}": n for (job, state), n in sorted(timeline.runs.items())},
        "events": [event.as_dict() for event in timeline.events],
    }
    with tour.stage("Quality week by week, with and without retraining") as print_line:
        retrained, control = (_weekly(tour.project, spec.name, begin, end) for spec in tour.project.models)
        tour.facts["quality"] = {weeks.model: retrained, weeks.control: control}
        for line in _weekly_lines(retrained, control):
            print_line(line)
    replay(tour)


def _weekly(project: Project, model: str, since_us: int, until_us: int) -> Weekly:
    """Return the quality of returned predictions by the known labels, one entry per week."""
    log = labelled_log(project, model)
    rows = log.read(since_us=since_us, until_us=until_us, known_by_us=project.clock.now_us())
    rows = rows.filter((pc.field("role") != "shadow") & pc.field("label").is_valid())
    return list(_weeks(rows, since_us, until_us))


def _weekly_lines(retrained: Weekly, control: Weekly) -> Iterator[str]:
    """Yield a line per week with the quality of both models."""
    others = {week["since"]: week for week in control}
    for week in retrained:
        other = others.get(week["since"])
        comparison = f" (without retraining: {other['log_loss']:.4f})" if other else ""
        text = f"{week['since'][:10]}: {week['labels']:,} labels, log loss {week['log_loss']:.4f}{comparison}"
        yield f"{text}, by {', '.join(week['versions'])}"


def _weeks(rows: pa.Table, since_us: int, until_us: int) -> Iterator[dict[str, Any]]:
    for start in range(since_us, until_us, WEEK_US):
        part = rows.filter((pc.field("t") >= start) & (pc.field("t") < start + WEEK_US))
        if part.num_rows:
            metrics = evaluate(part["label"].to_numpy(), part["score"].to_numpy())
            yield {
                "since": from_us(start).isoformat(),
                "labels": part.num_rows,
                "versions": sorted(part["version"].unique().to_pylist()),
                **{name: metrics[name] for name in ("log_loss", "auc", "base_rate")},
            }
