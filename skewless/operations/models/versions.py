"""The versions of a model: trained, promoted, and listed with their metrics, aliases and decisions.

A promotion is planned on the latest test rows, then applied by compare-and-set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from skewless.contract.errors import GateError, PackageError, RequestError, SourceError
from skewless.contract.names import check_known
from skewless.contract.plain_record import PlainRecord
from skewless.contract.spec import ModelSpec
from skewless.infra.models.packages.package import Package, open_package, pinned_plan, read_pinned_plan
from skewless.infra.platform.host.processes import run_behind_servers
from skewless.infra.platform.storage.names import is_version
from skewless.operations.audited import audited
from skewless.workspace import Workspace

if TYPE_CHECKING:
    from skewless.contract.plan import FeaturePlan
    from skewless.infra.ingest.materialization.readiness import OnRows
    from skewless.infra.models.packages.package import PackageContents
    from skewless.training.decision import Decision
    from skewless.training.promotion import TrainReport
    from skewless.training.train import FittedModel
    from skewless.training.training_data import TrainingData

CHAMPION = "champion"
Way = Literal["nothing", "at_once", "rollout"]


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """The plan or result of a promotion.

    Args:
        champion: current version of the alias, which must not change until the promotion is applied; None: none.
        decision: of the gate, on the latest test rows; None: the version is already champion.
        test_rows: number of rows of the evaluation.
    """

    model: str
    version: str
    champion: str | None
    decision: Decision | None
    test_rows: int

    @property
    def way(self) -> Way:
        """Return how the version becomes champion, if it does."""
        if self.decision is None or not self.decision.promote:
            return "nothing"
        return "rollout" if self.decision.by_rollout else "at_once"

    @property
    def refusal(self) -> GateError | None:
        """Return the error of a failed gate; None: the gate passes."""
        if self.decision is None or self.decision.promote:
            return None
        return GateError(
            f"model {self.model!r} {self.version}",
            f"was not promoted: {self.decision.reason}",
            fix="train a better version, or change the gate in models.py; the champion stays",
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        decision = None if self.decision is None else self.decision.as_dict()
        return {**vars(self), "way": self.way, "decision": decision}


def _tell_promotion(promotion: Promotion) -> dict[str, Any]:
    refused = {} if promotion.refusal is None else {"refused": promotion.refusal.problem}
    return {"before": promotion.champion, "after": promotion.version, "way": promotion.way, **refused}


@audited(tell=_tell_promotion)
def promote(
    project: Workspace, model: str, version: str | None = None, *, dry_run: bool = False, on_rows: OnRows | None = None
) -> Promotion:
    """Evaluate a version against the champion, and promote it if it passes its gate.

    Args: as ``plan_promotion`` and ``apply_promotion``, whose errors it raises.
    """
    planned = plan_promotion(project, model, version)
    return planned if dry_run else apply_promotion(project, planned, on_rows=on_rows)


def plan_promotion(project: Workspace, model: str, version: str | None = None) -> Promotion:
    """Return the plan of a promotion; nothing is changed.

    Args:
        version: any; None: the latest.

    Raises:
        PackageError: the version does not exist, was altered, or was trained for another task.
        SourceError: the label table has no test rows now, or lacks a key or request field of the version.
        StoreError: the log of a view of the version is missing.
    """
    from skewless.training.promotion import check_approvals, judge
    from skewless.training.quality import score_version

    spec = project.applied.model(model)
    version = latest_version(project, model) if version is None else version
    holder = project.store.aliases.get(model, CHAMPION)
    if version == holder:
        return Promotion(model=model, version=version, champion=holder, decision=None, test_rows=0)
    plan = pinned_plan(open_package(project.store, model, version))
    with project.open_training_data(model) as dataset:
        scores = score_version(dataset, spec, project.store, version)
        decision = judge(dataset, spec, scores, project.store, against=holder, state=project.state, plan=plan)
        decision = check_approvals(decision, project.store, model, version)
        rows = int(dataset.test.sum())
    return Promotion(model=model, version=version, champion=holder, decision=decision, test_rows=rows)


def apply_promotion(project: Workspace, planned: Promotion, *, on_rows: OnRows | None = None) -> Promotion:
    """Store the decision; if the gate passes, prepare the version's views, then move the alias or begin the rollout.

    Args:
        on_rows: called with the progress of views that the online store lacks.

    Returns:
        The result: a version that cannot be served yet is not promoted.

    Raises:
        ConflictError: another process moved the alias or began a rollout since the plan.
    """
    from skewless.training.promotion import check_readiness, record_decision

    if planned.decision is None:
        return planned
    spec, now_us = project.applied.model(planned.model), project.clock.now_us()
    pinned = read_pinned_plan(project.store, planned.model, planned.version)
    decision = check_readiness(planned.decision, pinned, partial(project.readiness.prepare, on_rows=on_rows))
    record_decision(spec, planned.version, decision, project.store, now_us, expect=planned.champion)
    _begin(project, planned.model, planned.version, decision)
    return replace(planned, decision=decision)


@audited()
def train(project: Workspace, model: str, *, on_rows: OnRows | None = None) -> TrainReport:
    """Train a new version, and promote it if it passes its gate.

    Labels are checked first. Training runs at low priority next to servers. A promoted version is served at once, or
    begins the rollout of its model. The version is published if ``tracking_uri`` is set.

    Args:
        on_rows: called with the progress of views that the online store lacks.

    Raises:
        RequestError: the plan has no such model.
        DefinitionError: ``tracking_uri`` is invalid, or its tracker is not installed; nothing is trained.
        GateError: the suite of the labels fails.
        SourceError: the labels or features cannot be used for training.
        ConflictError: another process moved the alias or began a rollout meanwhile; the new version stays.
    """
    from skewless.operations.models.tracking import check_tracker, publish_if_set
    from skewless.training.promotion import TrainReport
    from skewless.training.promotion import promote as promote_if_passed
    from skewless.training.train import write_version

    spec, now_us = project.applied.model(model), project.clock.now_us()
    # First: an untrusted key would otherwise be found only after the training.
    project.store.check_signer()
    check_tracker(project)
    project.checks.check_labels(spec).raise_if_failed()
    _fill_views(project, project.applied.plan.select_service(spec.service), on_rows)
    with ExitStack() as stack:
        # Nothing is written in idle time: others would wait for the lock until a core is idle.
        dataset, fitted, contents = run_behind_servers(project.state, partial(_fit, project, spec, now_us, stack))
        trained = write_version(fitted, contents, project.store)
        ready = partial(project.readiness.prepare, on_rows=on_rows)
        decision = promote_if_passed(dataset, spec, trained, project.store, now_us, state=project.state, prepare=ready)
    _begin(project, model, trained.package.version, decision)
    untracked = publish_if_set(project, [model])
    return TrainReport(trained=trained, decision=decision, dataset=dataset, untracked=untracked)


def _fit(
    project: Workspace, spec: ModelSpec, now_us: int, stack: ExitStack
) -> tuple[TrainingData, FittedModel, PackageContents]:
    """Fit a model; the training set exists until the stack ends."""
    from skewless.training.train import fit

    dataset, threads = stack.enter_context(project.open_training_data(spec.name)), project.settings.threads
    bounds = project.checks.bounds(dataset.plan, spec)
    return dataset, *fit(dataset, spec, threads=threads or os.cpu_count() or 1, now_us=now_us, bounds=bounds)


def _fill_views(project: Workspace, plan: FeaturePlan, on_rows: OnRows | None) -> None:
    """Fill views that were never filled, as after a change of definitions; what stays missing, training reports."""
    # First: states that are built from an empty log count as read, and a later import would not be history.
    project.views.check_events(plan)
    try:
        project.views.check_filled(plan)
    except SourceError:
        project.readiness.prepare(plan, on_rows=on_rows)


def _begin(project: Workspace, model: str, version: str, decision: Decision) -> None:
    if decision.promote and decision.by_rollout:
        from skewless.operations.models.rollout import begin_rollout

        begin_rollout(project, model, version)


def latest_version(project: Workspace, model: str) -> str:
    """Return the latest version of a model.

    Raises:
        RequestError: the plan has no such model.
        PackageError: it has none.
    """
    versions = project.packages.list_versions(model)
    if not versions:
        check_known("model", model, [spec.name for spec in project.applied.models])
        fix = f"train it with `skewless train {model}`"
        raise PackageError(f"model {model!r}", "has no version", fix=fix)
    return versions[-1]


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version.

    Args:
        trained_at: ISO 8601; None: its package cannot be read.
        aliases: its current aliases.
        metrics: of its own evaluation.
        rows: number of training rows.
        plan_hash: hash of the part of the feature plan that it pins, as in replies; None: its package cannot be read.
        decision: last decision of the gate, plain values; None: there is none.
        problem: why its package cannot be used; empty: it can.
    """

    version: str
    trained_at: str | None = None
    aliases: tuple[str, ...] = ()
    metrics: Mapping[str, float | None] | None = None
    rows: int | None = None
    plan_hash: str | None = None
    decision: Mapping[str, Any] | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class VersionsReport(PlainRecord):
    """All versions of a model and all changes of its aliases, the latest first.

    Args:
        metric: the gate's.
        moves: ``alias``, ``number``, ``expect``, ``to``, ``reason``, ``at_us``.
    """

    model: str
    metric: str
    versions: tuple[Version, ...]
    moves: tuple[dict[str, Any], ...]


def open_champion(project: Workspace, model: str) -> Package:
    """Return the package of a model's champion.

    Raises:
        PackageError: the model has no champion, or the package was altered.
    """
    version = project.store.aliases.get(model, CHAMPION)
    if version is None:
        raise PackageError(f"model {model!r}", "has no champion", fix=f"run `skewless train {model}`")
    return open_package(project.store, model, version)


def read_versions(
    project: Workspace, model: str, *, limit: int | None = None, before: str | None = None
) -> VersionsReport:
    """Return the versions of a model of the plan; changes nothing.

    Args:
        limit: the most versions, and moves of each alias, the latest ones; None: all.
        before: only versions before this one; None: all.

    Raises:
        RequestError: the plan has no such model, or ``before`` is not a version.
    """
    if before is not None and not is_version(before):
        raise RequestError("option --before", "is not a version", value=before, fix="use a number such as 000012")
    metric, aliases = project.applied.model(model).gate.metric, project.store.aliases
    holders = {name: aliases.get(model, name) for name in aliases.names(model)}
    names = project.packages.list_versions(model)[::-1]
    selected = [name for name in names if before is None or int(name) < int(before)][:limit]
    decisions: dict[str, dict[str, Any]] = {}
    for decision in project.store.decisions.read_latest_first(model):
        decisions.setdefault(decision["version"], decision)
        if decisions.keys() >= set(selected):
            break
    versions = [_version(project, model, version, holders, decisions.get(version)) for version in selected]
    moves = read_moves(project, model, most=limit)
    return VersionsReport(model=model, metric=metric, versions=tuple(versions), moves=tuple(moves))


def read_moves(project: Workspace, model: str, *, most: int | None = None) -> list[dict[str, Any]]:
    """Return the moves of all aliases of a model, or the latest ones of each, latest first."""
    aliases = project.store.aliases
    moves = [
        {"alias": name, **asdict(move)}
        for name in aliases.names(model)
        for move in aliases.read_latest_first(model, name, most)
    ]
    return sorted(moves, key=lambda move: (move["at_us"], move["number"]), reverse=True)


def _version(
    project: Workspace, model: str, version: str, holders: Mapping[str, str | None], decision: Mapping[str, Any] | None
) -> Version:
    held = tuple(name for name, holder in holders.items() if holder == version)
    try:
        package = open_package(project.store, model, version)
        plan_hash = pinned_plan(package).hash
    except PackageError as error:
        return Version(version=version, aliases=held, decision=decision, problem=f"{error.problem}: {error.value}")
    return Version(
        version=version,
        trained_at=package.about.get("trained_at"),
        aliases=held,
        metrics=package.metrics,
        rows=package.fingerprint.get("train_rows"),
        plan_hash=plan_hash,
        decision=decision,
    )
