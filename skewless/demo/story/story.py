"""The chapters of the story, in their order."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from skewless.contract.clock import from_us
from skewless.demo.processes import run_once, serving
from skewless.demo.story.run_timeline import RunTimeline
from skewless.demo.story.story_project import StoryProject
from skewless.demo.story.weekly import DAY_US, WEEK_US, lines, weekly
from skewless.demo.story.weeks import Weeks
from skewless.demo.tour_state import HOUR_US, TourState
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.labels import askable, read_labels
from skewless.infra.packages.aliases import Aliases
from skewless.infra.rollout.traffic import Traffic
from skewless.operations.rollout import begin_rollout
from skewless.operations.scheduler import Invoke, hold_term
from skewless.project import Project
from skewless.training.train import train

_MICROSECOND = timedelta(microseconds=1)
_SPOILT_AT, _SPOILT_FOR = timedelta(days=10, hours=6), timedelta(hours=12)
_NOWHERE = "redis://127.0.0.1:1"


class StorySpan(NamedTuple):
    """How long the story lasts, and how many weeks of flights lie before it."""

    days: int
    after: int


def run_story(repo: Path, invoke: Invoke, *, days: int, after: int) -> dict[str, Any]:
    """Live through weeks of flights with one model; return the facts; everything started is stopped.

    Args:
        repo: the flights' repo; the story plays on a copy beside its data.
        invoke: runs a verb in this process.
        days: how long it lasts.
        after: weeks of flights before it begins.

    Raises:
        SkewlessError: a chapter failed; its message says what to fix.
    """
    start = time.perf_counter()
    ground = StoryProject.lay(repo)
    walk = TourState(project=Project(ground.repo), console=Console())
    try:
        _play(walk, ground, StorySpan(days=days, after=after), invoke)
    finally:
        walk.project.close()
    walk.facts["seconds"] = round(time.perf_counter() - start, 1)
    return walk.facts


def _play(walk: TourState, ground: StoryProject, span: StorySpan, invoke: Invoke) -> None:
    project = walk.project
    project.apply()
    spec, beside = project.models
    rows = _rows(project)
    begin = int(pc.min(rows[TIME]).as_py()) // WEEK_US * WEEK_US + span.after * WEEK_US
    end = begin + span.days * DAY_US
    walk.clock.set(begin - 2 * HOUR_US)
    _prepare(walk)
    with walk.stage(f"{span.days} days from {from_us(begin):%Y-%m-%d}, hour by hour") as say:
        traffic, aliases = Traffic(project.packages), Aliases(project.packages)
        chronicle = RunTimeline(model=spec.name, traffic=traffic, aliases=aliases, tell=say)
        with serving(walk) as client, hold_term(project, invoke, chronicle.hear) as shift:
            life = Weeks(
                walk=walk,
                client=client,
                shift=shift,
                chronicle=chronicle,
                model=spec.name,
                beside=beside.name,
                rows=rows,
                feature=ground.defect.feature,
            )
            spoilt_at = begin + _SPOILT_AT // _MICROSECOND
            mended_at = spoilt_at + _SPOILT_FOR // _MICROSECOND
            hours = ground.spoil(spoilt_at, _SPOILT_FOR)
            life.live(begin, spoilt_at)
            chronicle.add(spoilt_at, "planted", f"{hours} {ground.defect.wrong}")
            life.live(spoilt_at, mended_at)
            ground.mend()
            chronicle.add(mended_at, "planted", ground.defect.mended)
            _live_on(life, mended_at, end)
    _close(walk, life, begin, end)


def _live_on(life: Weeks, since_us: int, until_us: int) -> None:
    """Live on; a day after another version than the first has become champion, send the bad one on its way."""
    sent = False
    for moment in range(since_us, until_us, DAY_US):
        if not sent and life.is_settled:
            version = _send_bad_challenger(life.walk.project, life.model)
            text = f"version {version}, trained on labels turned round, is sent past its gate"
            life.chronicle.add(moment, "planted", text)
            life.take_note()
            sent = True
        life.live(moment, min(moment + DAY_US, until_us))


def _send_bad_challenger(project: Project, model: str) -> str:
    """Train a version that takes every late flight for one on time, and let its rollout begin; return the version."""
    dataset, spec = project.training_set(model), project.applied.model(model)
    threads = project.settings.threads or os.cpu_count() or 1
    turned = replace(dataset, labels=1.0 - dataset.labels)
    trained = train(turned, spec, project.store, threads=threads, now_us=project.clock.now_us())
    begin_rollout(project, model, trained.package.version)
    return trained.package.version


def _rows(project: Project) -> pa.Table:
    spec = project.models[0]
    plan = project.applied.plan.only(spec.service)
    rows = read_labels(project.connection, project.repo, plan, spec)
    return rows.filter(pa.array(askable(plan.request, rows))).sort_by(TIME)


def _prepare(walk: TourState) -> None:
    with walk.stage("Published rows -> log -> Redis; the first version") as say:
        for item in walk.project.materialize():
            say(f"{item.view}: {item.accepted:,} rows accepted, {item.written:,} keys")
        for spec in walk.project.models:
            report = walk.project.train(spec.name)
            say(f"{spec.name} {report.trained.package.version}: {report.decision.reason}")


def _close(walk: TourState, life: Weeks, begin: int, end: int) -> None:
    chronicle = life.chronicle
    walk.facts |= {
        "predictions": life.asked,
        "outcomes": life.told,
        "spoilt_feature": [min(seen), max(seen)] if (seen := [one for one in life.seen if one is not None]) else [],
        "runs": {f"{job} {state}": n for (job, state), n in sorted(chronicle.runs.items())},
        "events": [event.as_dict() for event in chronicle.events],
    }
    with walk.stage("Quality week by week, beside the model that was left alone") as say:
        living, alone = (weekly(walk.project, spec.name, begin, end) for spec in walk.project.models)
        walk.facts["quality"] = {life.model: living, life.beside: alone}
        for line in lines(living, alone):
            say(line)
    with walk.stage("Replay, in another process, without Redis") as say:
        report = run_once(walk, "replay", wanted="lines", SKEWLESS_REDIS_URL=_NOWHERE)
        for line in report["lines"]:
            say(line)
        walk.facts |= {"replayed": report["compared"], "different_bits": report["different"]}
