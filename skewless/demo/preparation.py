"""Before the test period: definitions applied, data checked and materialized, history imported, models trained."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.clock import from_us
from skewless.contract.errors import DefinitionError, GateError, SourceError
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.demo.feature_gain import LabelledScores, gains
from skewless.demo.tour_state import HOUR_US, TourState
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.labels import find_servable, read_labels
from skewless.infra.online.store import open_online_store
from skewless.infra.packages.served_model import load_model
from skewless.infra.streams.decode import FUTURE_US
from skewless.training.promotion import TrainReport
from skewless.training.quality import quality_lines


def prepare(tour: TourState) -> None:
    """Run the stages before the test period, and select the label rows of each model in it.

    The period starts with the earliest test period of a model.

    Raises:
        DefinitionError: the project has no model.
        SourceError: a label table has no row.
        GateError: no model passed its gate.
    """
    project = tour.project
    with tour.stage("Definitions -> plan") as print_line:
        report = project.apply()
        print_line(f"plan {report.hash}: {len(report.changes)} new views, transforms, services and models")
    if not project.models:
        raise DefinitionError(f"project in {project.repo}", "has no model", fix="declare one in models.py")
    rows = {
        spec.name: read_labels(project.connection, project.repo, tour.plan_of(spec), spec) for spec in project.models
    }
    begin = min(_test_begin(spec, rows[spec.name]) for spec in project.models) // HOUR_US * HOUR_US
    # One hour early: the clock ticks while models train, and cannot be moved back.
    tour.clock.set(begin - HOUR_US)
    _materialize(tour)
    if project.applied.plan.windows:
        _import(tour)
    for model in project.models:
        _train(tour, model)
    _select_served(tour)
    _compare(tour)
    tour.rows = {spec.name: _request_rows(tour.plan_of(spec), rows[spec.name], begin) for spec in tour.served}


def _test_begin(spec: ModelSpec, rows: pa.Table) -> int:
    last = pc.max(rows[TIME]).as_py()
    if last is None:
        raise SourceError(f"label table of model {spec.name!r}", "has no row", fix="add labels")
    return int(last - spec.as_dict()["split"]["test"])


def _request_rows(plan: FeaturePlan, rows: pa.Table, begin: int) -> pa.Table:
    later = pc.greater_equal(rows[TIME], begin)
    return rows.filter(pc.and_(later, pa.array(find_servable(plan.request, rows))))


def _select_served(tour: TourState) -> None:
    """Select the models with a champion; the other models are not served."""
    aliases = tour.project.store.aliases
    tour.served = [spec for spec in tour.project.models if aliases.get(spec.name, "champion") is not None]
    if not tour.served:
        names = ", ".join(spec.name for spec in tour.project.models)
        fix = "improve the models, or change their gates in models.py"
        raise GateError("demo", "has no model that passed its gate", value=names, fix=fix)


def _materialize(tour: TourState) -> None:
    with tour.stage("Sources -> checks") as print_line:
        now = f"{from_us(tour.clock.now_us()):%Y-%m-%d %H:%M} UTC"
        print_line(f"the clock is at {now}; later data is not visible")
        if tour.project.applied.plan.sources:
            slack = FUTURE_US // 1_000_000
            print_line(f"an event more than {slack} s later than this clock is quarantined, and is not applied later:")
            print_line("send your own events with times up to the demo's clock")
            tour.facts["events_rejected_beyond_clock_s"] = slack
        for check in tour.project.validate().reports:
            check.raise_if_failed()
            print_line(f"{check.name}: {check.n_rows:,} rows, {len(check.results)} expectations pass")
    with tour.stage("Source rows -> accepted log -> online store") as print_line:
        for item in tour.project.materialize():
            print_line(
                f"{item.view}: {item.accepted:,} rows accepted, {item.rejected} quarantined, {item.written:,} keys"
            )


def _import(tour: TourState) -> None:
    project, streams = tour.project, tour.project.streams
    with tour.stage("Event history -> accepted log") as print_line:
        for source in streams.sources():
            if source.history is not None:
                result = streams.importer(source, project.repo).run()
                print_line(f"{result.source}: {result.accepted:,} events accepted, {result.rejected} quarantined")
    with tour.stage("Events -> window states") as print_line, closing(open_online_store(streams.redis_url)) as store:
        for built in streams.backfiller(store).build_missing(project.applied.plan.windows):
            print_line(f"{built.view}: {built.events:,} events in {built.states:,} states")


def _train(tour: TourState, spec: ModelSpec) -> None:
    with tour.stage(f"Training set -> {spec.name}") as print_line:
        report = tour.project.train(spec.name)
        print_line(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in report.dataset.counts.items()))
        print_line(
            f"{int(report.dataset.train.sum()):,} training rows, {int(report.dataset.test.sum()):,} later test rows"
        )
        for line in quality_lines(report.trained.metrics):
            print_line(line)
        print_line(f"version {report.trained.package.version}: {report.decision.reason}")
        if not report.decision.promote:
            print_line(f"{spec.name} has no champion, so it is not served")
        tour.tested[spec.name] = _test_scores(tour, spec, report)


def _test_scores(tour: TourState, spec: ModelSpec, report: TrainReport) -> LabelledScores:
    dataset = report.dataset
    model = load_model(tour.project.store, spec.name, report.trained.package.version)
    try:
        scores = model.runtime.score(np.ascontiguousarray(dataset.matrix[dataset.test]))
    finally:
        model.runtime.close()
    return LabelledScores(labels=dataset.labels[dataset.test], scores=scores)


def _compare(tour: TourState) -> None:
    by_names = gains(tour.project.models, tour.project.applied.plan, tour.tested)
    if not by_names:
        return
    with tour.stage("The same model without and with windows, on the same test rows") as print_line:
        for names, gain in by_names.items():
            print_line(f"{names}: {gain.line()}, 95 % bootstrap interval")
            tour.facts["gain"] = asdict(gain)
