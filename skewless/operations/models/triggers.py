"""Why models are trained: the triggers of a model, and changes of its definitions.

A trigger is a reason for a retraining in addition to the cron line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from skewless.contract.errors import PackageError
from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.plain_record import PlainRecord
from skewless.contract.readable import duration_text
from skewless.contract.render import count_text
from skewless.contract.spec import ModelSpec
from skewless.infra.models.packages.package import Package, open_package
from skewless.operations.audited import audited
from skewless.operations.jobs.runs import Runs
from skewless.operations.models.drift import latest_drift
from skewless.operations.models.versions import open_champion
from skewless.workspace import Workspace

if TYPE_CHECKING:
    from skewless.validation.live_quality import Quality

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class RetrainCause:
    """One reason to retrain.

    Args:
        name: ``drift``, ``quality``, ``labels`` or ``age``.
        sentence: for people.
        evidence: the numbers behind it, as plain values.
    """

    name: str
    sentence: str
    evidence: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TriggersReport(PlainRecord):
    """Why a model should be retrained now.

    Args:
        causes: empty: no trigger fires.
        asked: id of the requested run; None: no run was requested.
    """

    model: str
    causes: list[RetrainCause]
    asked: str | None = None


@audited(changing=("start",))
def triggers(project: Workspace, model: str, *, start: bool = False) -> TriggersReport:
    """Return why a model should be retrained now; with ``start``, request the retraining if there is a cause.

    Raises: as ``find_causes``; also ConflictError: another run was requested at the same microsecond.
    """
    causes = find_causes(project, model)
    sentences = "; ".join(cause.sentence for cause in causes)
    run_id = str(Runs(project).retrain(model, sentences)) if causes and start else None
    return TriggersReport(model=model, causes=causes, asked=run_id)


def find_causes(project: Workspace, model: str) -> list[RetrainCause]:
    """Return why a model should be retrained now by its ``Triggers``; empty within the cooldown after a training.

    Drift is read from the latest report of ``skewless drift``; it is not measured again.

    Raises:
        RequestError: the plan has no such model.
        PackageError: the model has no champion, or a package was altered.
        SourceError: the label table is invalid.
        StoreError: a log is corrupt.
    """
    spec, now = project.applied.model(model), project.clock.now_us()
    champion, trained_us = open_champion(project, model), last_training_us(project, model)
    if now - trained_us < spec.triggers.cooldown // _MICROSECOND:
        return []
    causes = (
        _drift(project, spec, champion, trained_us),
        _quality(project, spec, champion, now),
        _labels(project, spec, trained_us, now),
        _age(spec, champion, now),
    )
    return [cause for cause in causes if cause is not None]


def last_training_us(project: Workspace, model: str) -> int:
    """Return the time as of which the latest version was trained, whether or not it was promoted.

    Raises:
        PackageError: the model has no version, or it was altered.
    """
    versions = project.packages.list_versions(model)
    latest = open_package(project.store, model, versions[-1]) if versions else open_champion(project, model)
    return _trained_us(latest)


def _drift(project: Workspace, spec: ModelSpec, champion: Package, trained_us: int) -> RetrainCause | None:
    window = latest_drift(project, spec.name) if spec.triggers.drift else None
    # A window from before the training says nothing about this champion.
    if window is None or window["version"] != champion.version or window["until_us"] <= trained_us:
        return None
    if window["verdict"] != "drifted":
        return None
    names = ", ".join(window["drifted"][:3])
    sentence = f"{window['share']:.0%} of the features have drifted, mainly {names}"
    return RetrainCause(name="drift", sentence=sentence, evidence={name: window[name] for name in _DRIFT_EVIDENCE})


_DRIFT_EVIDENCE = ("since", "until", "rows", "share", "limit_share", "drifted")


def _quality(project: Workspace, spec: ModelSpec, champion: Package, now: int) -> RetrainCause | None:
    limit = spec.triggers.quality
    if limit is None:
        return None
    metric, trained_value = spec.gate.metric, champion.metrics.get(spec.gate.metric)
    quality = next(_matured_quality(project, spec, champion.version, now), None)
    live = None if quality is None else quality.metric(metric)
    if quality is None or live is None or trained_value is None or quality.labelled < spec.watch.least_rows:
        return None
    drop = (trained_value - live) * (-1 if metric in LOWER_IS_BETTER else 1)
    # If the interval includes the value at training, the drop may be chance.
    if drop <= limit or not is_beyond_chance(metric, live, trained_value, quality.interval):
        return None
    change = f"{drop:.4f} worse than at training ({trained_value:.4f})"
    sentence = f"{metric} is {live:.4f} on {count_text(quality.labelled, 'label')}, {change}"
    evidence = {"metric": metric, "live": live, "trained": trained_value, "drop": drop, "limit": limit}
    return RetrainCause(
        name="quality",
        sentence=sentence,
        evidence=evidence | {"labels": quality.labelled, "interval": quality.interval},
    )


def _matured_quality(project: Workspace, spec: ModelSpec, version: str, now: int) -> Iterator[Quality]:
    """Yield the quality of a version in the last window with mostly known labels, if it has predictions there."""
    import pyarrow.compute as pc

    from skewless.operations.models.quality import label_delay_us, labelled_log
    from skewless.validation.live_quality import live_quality

    delay = label_delay_us(project, spec.name, None, now)
    if delay is None:
        return
    until = now - delay
    since = until - spec.watch.window // _MICROSECOND
    rows = labelled_log(project, spec.name).read(since_us=since, until_us=until, known_by_us=now)
    yield from live_quality(rows.filter(pc.field("version") == version), spec, mature_until_us=until)


def _labels(project: Workspace, spec: ModelSpec, trained_us: int, now: int) -> RetrainCause | None:
    from skewless.infra.records.outcomes.label_rows import count_labels
    from skewless.operations.models.quality import labelled_log

    limit = spec.triggers.labels
    if limit is None:
        return None
    n = count_labels(labelled_log(project, spec.name), trained_us, now)
    if n < limit:
        return None
    sentence = f"{count_text(n, 'label')} became known since the last training"
    return RetrainCause(name="labels", sentence=sentence, evidence={"labels": n, "limit": limit})


def _age(spec: ModelSpec, champion: Package, now: int) -> RetrainCause | None:
    limit = spec.triggers.age
    age = (now - _trained_us(champion)) * _MICROSECOND
    if limit is None or age < limit:
        return None
    sentence = f"the champion was trained {duration_text(age.total_seconds())} ago"
    evidence = {"age_us": age // _MICROSECOND, "limit_us": limit // _MICROSECOND}
    return RetrainCause(name="age", sentence=sentence, evidence=evidence)


def _trained_us(package: Package) -> int:
    return int(package.about["as_of_us"])


@dataclass(frozen=True, kw_only=True)
class TrainingCause:
    """What a training of a model changes.

    Args:
        version: the champion, or the version in rollout that has the definitions; None: there is no champion.
        reasons: the differences of the definitions from that version; empty: there are none.
        dataset: digest of that version's training data; empty: there are differences, or its package cannot be read.
    """

    model: str
    version: str | None
    reasons: tuple[str, ...]
    dataset: str = ""

    def sentence(self, package: Package | None = None) -> str:
        """Return the cause in a sentence; with the new package, also whether its data are the same."""
        if self.version is None:
            return f"{self.model}: trained because it has no champion"
        if self.reasons:
            return f"{self.model}: trained because its definitions differ from version {self.version}: " + ", ".join(
                self.reasons
            )
        text = f"{self.model}: trained again: version {self.version} has the same definitions"
        is_same = package is not None and self.dataset and package.fingerprint.get("dataset") == self.dataset
        return f"{text} and the same training data" if is_same else text


def read_training_causes(project: Workspace) -> dict[str, TrainingCause]:
    """Return the cause of a training now, for each model of the applied plan."""
    applied = project.applied
    effects, _ = project.planner.find_effects(applied.plan, applied.plan)
    needed = {item.model: item for item in effects.find_trainings(applied.models)}
    causes = {}
    for spec in applied.models:
        name = spec.name
        if name in needed:
            item = needed[name]
            causes[name] = TrainingCause(model=name, version=item.version, reasons=item.reasons)
            continue
        version = effects.find_ready_challenger(spec) or effects.champions[name].version
        causes[name] = TrainingCause(
            model=name, version=version, reasons=(), dataset=_read_dataset(project, name, version)
        )
    return causes


def _read_dataset(project: Workspace, model: str, version: str) -> str:
    try:
        return str(open_package(project.store, model, version).fingerprint.get("dataset", ""))
    except PackageError:
        return ""


def is_beyond_chance(metric: str, live: float, trained: float, interval: Sequence[float] | None) -> bool:
    """Return whether a live metric is worse than at training, and its interval, if any, excludes that value.

    >>> is_beyond_chance("auc", 0.7, 0.8, (0.65, 0.75)), is_beyond_chance("auc", 0.7, 0.8, (0.6, 0.81))
    (True, False)
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1
    best = live if interval is None else max(interval, key=lambda end: sign * end)
    return sign * live < sign * trained and sign * best < sign * trained
