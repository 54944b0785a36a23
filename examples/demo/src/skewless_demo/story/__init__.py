"""``skewless demo --drift``: weeks of a model on real flights, with injected faults."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from rich.console import Console

from skewless.contract.clock import OffsetClock, from_us
from skewless.contract.errors import PlaceError
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.labels import find_servable, read_labels
from skewless.infra.reads.offline.sql import quote
from skewless.operations.jobs.scheduler import Invoke, hold_term
from skewless.operations.models.quality import labelled_log
from skewless.operations.models.rollout import begin_rollout
from skewless.project import Project
from skewless.training.train import train
from skewless.validation.evaluation.evaluation import evaluate
from skewless_demo.stages import replay
from skewless_demo.story.weeks import RunTimeline, Weeks
from skewless_demo.tour_state import HOUR_US, TourState, log_to_file, serving

FOLDER = ".skewless/story"
_MODELS, _STORY_MODELS = "models.py", "story_models.py"
_DEFECT = "story.yaml"
_CLOCK = ".skewless/clock"
_SETTINGS = {
    "materialize_cron": "0 */6 * * *",
    "validate_cron": "off",
    "drift_cron": "10 4 * * *",
    "quality_cron": "20 4 * * 1",
    "triggers_cron": "30 4 * * *",
    "parity_cron": "40 4 1 * *",
    "replay_cron": "50 4 1 * *",
    "freshness_cron": "off",
    "housekeeping_cron": "0 4 * * *",
    "rollout_seconds": 6 * 3600.0,
    "log_flush_seconds": 0.1,
    "port": 0,
}


@dataclass(frozen=True, kw_only=True)
class SourceDefect:
    """The fault of a source, as the repo declares it.

    Args:
        table: folder of Parquet files below ``data``.
        time: its column of event times.
        column: its column with values in another unit.
        divide_by: factor of that unit.
        feature: name of the feature with these values.
        wrong, repaired: texts for the timeline.
    """

    table: str
    time: str
    column: str
    divide_by: float
    feature: str
    wrong: str
    repaired: str


@dataclass(frozen=True, kw_only=True)
class StoryProject:
    """The project of the story.

    Args:
        repo: its folder.
        source: the original repo.
        defect: the injected fault.
    """

    repo: Path
    source: Path
    defect: SourceDefect

    @classmethod
    def create(cls, source: Path) -> Self:
        """Create the project, and replace an older one; data is linked, the faulty table is copied.

        Raises:
            PlaceError: the repo has no story, or its data is not loaded.
        """
        _check(source, {_STORY_MODELS: "use --repo feature_repo", _DEFECT: "use --repo feature_repo"})
        defect = SourceDefect(**yaml.safe_load((source / _DEFECT).read_text(encoding="utf-8")))
        _check(source, {f"data/{defect.table}": f"run python -m skewless_demo.flights --repo {source}"})
        repo = (source / FOLDER).resolve()
        shutil.rmtree(repo, ignore_errors=True)
        (repo / "data").mkdir(parents=True)
        for path in (*source.glob("*.py"), source / "feature_store.yaml", source / ".feastignore"):
            shutil.copy(path, repo / path.name)
        shutil.copy(source / _STORY_MODELS, repo / _MODELS)
        for folder in (source / "data").iterdir():
            if folder.name == defect.table:
                shutil.copytree(folder, repo / "data" / folder.name)
            else:
                (repo / "data" / folder.name).symlink_to(folder.resolve(), target_is_directory=True)
        OffsetClock.create(repo / _CLOCK)
        settings = _SETTINGS | {"clock": f"file:{_CLOCK}"}
        (repo / "skewless.yaml").write_text(yaml.safe_dump(settings))
        return cls(repo=repo, source=source, defect=defect)

    def inject_fault(self, since_us: int, length: timedelta) -> int:
        """Rewrite the values of some hours in another unit; return the number of rows."""
        until_us = since_us + length // timedelta(microseconds=1)
        rows, column = 0, quote(self.defect.column)
        for path in self._files():
            with duckdb.connect() as connection:
                wrong = f"epoch_us({quote(self.defect.time)}::TIMESTAMP) BETWEEN ? AND ?"
                source = "read_parquet(?)"
                count = connection.execute(
                    f"SELECT count(*) FROM {source} WHERE {wrong}",  # noqa: S608 - both are ours
                    [str(path), since_us, until_us],
                ).fetchone()
                if count is None or not count[0]:
                    continue
                rows += int(count[0])
                target = path.with_suffix(".new")
                connection.execute(
                    f"COPY (SELECT * REPLACE (CASE WHEN {wrong} THEN {column} / {float(self.defect.divide_by)}"  # noqa: S608
                    f" ELSE {column} END AS {column}) FROM {source}) TO '{target}' (FORMAT parquet)",
                    [since_us, until_us, str(path)],
                )
            target.replace(path)
        return rows

    def repair(self) -> None:
        """Replace the faulty table by the original."""
        for path in self._files():
            target = path.with_suffix(".new")
            shutil.copy(self.source / "data" / self.defect.table / path.name, target)
            target.replace(path)

    def _files(self) -> list[Path]:
        return sorted((self.repo / "data" / self.defect.table).glob("*.parquet"))


def _check(source: Path, needs: dict[str, str]) -> None:
    for needed, fix in needs.items():
        if not (source / needed).exists():
            raise PlaceError(f"story of drift in {source}", "has no such file", value=needed, fix=fix)


_MICROSECOND = timedelta(microseconds=1)
_FAULT_START, _FAULT_LENGTH = timedelta(days=10, hours=6), timedelta(hours=12)
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US
Weekly = Sequence[Mapping[str, Any]]


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
    with tour.project, log_to_file(tour.console, story.repo / "demo.log"):
        _play(tour, story, invoke, days=days, after=after)
    tour.facts["seconds"] = round(time.perf_counter() - start, 1)
    return tour.facts


def _play(tour: TourState, story: StoryProject, invoke: Invoke, *, days: int, after: int) -> None:
    project = tour.project
    project.apply()
    spec, control = project.models
    rows = _rows(project)
    begin = int(pc.min(rows[TIME]).as_py()) // WEEK_US * WEEK_US + after * WEEK_US
    end = begin + days * DAY_US
    tour.clock.set(begin - 2 * HOUR_US)
    _prepare(tour)
    title = f"{days} days from {from_us(begin):%Y-%m-%d}, hour by hour"
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
