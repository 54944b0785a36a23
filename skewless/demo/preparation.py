"""Before the test period: definitions in force, data checked and published, history imported, models trained."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.clock import from_us
from skewless.contract.errors import DefinitionError, GateError, SourceError
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.demo.feature_gain import LabelledScores, gains
from skewless.demo.feed import open_store
from skewless.demo.tour_state import HOUR_US, TourState
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.labels import askable, read_labels
from skewless.infra.packages.aliases import Aliases
from skewless.infra.packages.served_model import load_model
from skewless.infra.streams.decode import FUTURE_US
from skewless.training.promotion import TrainReport
from skewless.training.quality import quality_lines


def prepare(walk: TourState) -> None:
    """Do all that comes before the test period, and choose the label rows that each model is asked in it.

    The period begins with the earliest test period of a model.

    Raises:
        DefinitionError: the project has no model.
        SourceError: a label table has no row.
        GateError: no model passed its gate.
    """
    project = walk.project
    with walk.stage("Definitions -> plan") as say:
        report = project.apply()
        say(f"plan {report.hash}: {len(report.changes)} new views, transforms, services and models")
    if not project.models:
        raise DefinitionError(f"project in {project.repo}", "has no model", fix="declare one in models.py")
    rows = {
        spec.name: read_labels(project.connection, project.repo, walk.plan_of(spec), spec) for spec in project.models
    }
    begin = min(_test_begin(spec, rows[spec.name]) for spec in project.models) // HOUR_US * HOUR_US
    # One hour early: the clock ticks while models train, and must never be moved back.
    walk.clock.set(begin - HOUR_US)
    _publish(walk)
    if project.applied.plan.windows:
        _import(walk)
    for model in project.models:
        _train(walk, model)
    _choose(walk)
    _compare(walk)
    walk.rows = {spec.name: _asked(walk.plan_of(spec), rows[spec.name], begin) for spec in walk.served}


def _test_begin(spec: ModelSpec, rows: pa.Table) -> int:
    last = pc.max(rows[TIME]).as_py()
    if last is None:
        raise SourceError(f"label table of model {spec.name!r}", "has no row", fix="add labels")
    return int(last - spec.as_dict()["split"]["test"])


def _asked(plan: FeaturePlan, rows: pa.Table, begin: int) -> pa.Table:
    later = pc.greater_equal(rows[TIME], begin)
    return rows.filter(pc.and_(later, pa.array(askable(plan.request, rows))))


def _choose(walk: TourState) -> None:
    """Keep the models that have a champion: the others are not served."""
    aliases = Aliases(walk.project.packages)
    walk.served = [spec for spec in walk.project.models if aliases.get(spec.name, "champion") is not None]
    if not walk.served:
        names = ", ".join(spec.name for spec in walk.project.models)
        fix = "improve the models, or change their gates in models.py"
        raise GateError("demo", "has no model that passed its gate", value=names, fix=fix)


def _publish(walk: TourState) -> None:
    with walk.stage("Data -> checked") as say:
        now = f"{from_us(walk.clock.now_us()):%Y-%m-%d %H:%M} UTC"
        say(f"the clock now says {now}; nothing later is seen")
        if walk.project.applied.plan.sources:
            slack = FUTURE_US // 1_000_000
            say(f"an event of a later time than this clock and {slack} s is rejected for good: it goes to quarantine,")
            say("and is not taken up when its time comes; send events of your own with times up to the demo's clock")
            walk.facts["events_rejected_beyond_clock_s"] = slack
        for check in walk.project.validate().reports:
            check.raise_if_failed()
            say(f"{check.name}: {check.n_rows:,} rows, {len(check.results)} expectations hold")
    with walk.stage("Published rows -> accepted log -> Redis") as say:
        for item in walk.project.materialize():
            say(f"{item.view}: {item.accepted:,} rows accepted, {item.rejected} quarantined, {item.written:,} keys")


def _import(walk: TourState) -> None:
    project, streams = walk.project, walk.project.streams
    with walk.stage("Event history -> accepted log") as say:
        for source in streams.sources():
            if source.history is not None:
                done = streams.importer(source, project.repo).run()
                say(f"{done.source}: {done.accepted:,} events accepted, {done.rejected} quarantined")
    with walk.stage("Events -> states of windows") as say:
        store = open_store(streams)
        try:
            for built in streams.backfiller(store).build_missing(project.applied.plan.windows):
                say(f"{built.view}: {built.events:,} events in {built.states:,} states")
        finally:
            store.close()


def _train(walk: TourState, spec: ModelSpec) -> None:
    with walk.stage(f"Training set -> {spec.name}") as say:
        report = walk.project.train(spec.name)
        say(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in report.dataset.counts.items()))
        say(f"{int(report.dataset.train.sum()):,} rows train, {int(report.dataset.test.sum()):,} later rows test")
        for line in quality_lines(report.trained.metrics):
            say(line)
        say(f"version {report.trained.package.version}: {report.decision.reason}")
        if not report.decision.promote:
            say(f"{spec.name} has no champion: it is not served")
        walk.tested[spec.name] = _tested(walk, spec, report)


def _tested(walk: TourState, spec: ModelSpec, report: TrainReport) -> LabelledScores:
    dataset = report.dataset
    model = load_model(walk.project.store, spec.name, report.trained.package.version)
    try:
        scores = model.runtime.score(np.ascontiguousarray(dataset.matrix[dataset.test]))
    finally:
        model.runtime.close()
    return LabelledScores(labels=dataset.labels[dataset.test], scores=scores)


def _compare(walk: TourState) -> None:
    found = gains(walk.project.models, walk.project.applied.plan, walk.tested)
    if not found:
        return
    with walk.stage("The same model without and with windows, on the same test rows") as say:
        for names, gain in found.items():
            say(f"{names}: {gain.line()}, 95 % of bootstrap draws")
            walk.facts["gain"] = {"before": gain.before, "after": gain.after, "low": gain.low, "high": gain.high}
