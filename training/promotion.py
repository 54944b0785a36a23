"""Promotes versions: compares a new version with the champion on the same rows and moves the alias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from skewless.contract.errors import SkewlessError
from skewless.contract.plan import FeaturePlan
from skewless.contract.render import count_text
from skewless.contract.spec import ModelSpec
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.runtimes.port import Scores
from skewless.infra.models.verdicts.last_verdicts import LastParity, read_last
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.training.decision import DEFAULT_CONFIDENCE, Decision, GateEvidence, decide, measure_slice_gains
from skewless.training.quality import measure, score_version
from skewless.training.train import TrainedVersion
from skewless.training.training_data import TrainingData
from skewless.validation.evaluation.bootstrap import RESAMPLES, ScorePair, paired_gain
from skewless.validation.evaluation.evaluation import gate_baseline, gate_metric

CHAMPION = "champion"
# Brings all data of a pinned plan to the online store; returns the remaining problems, a sentence each.
Prepare = Callable[[FeaturePlan], list[str]]
_MAX_RESAMPLED_ROWS = 200_000_000  # rows of all resamples together, which take seconds
_MIN_RESAMPLES = 200
_log = EventLogger()


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """A trained version and the gate's decision about it.

    Args:
        dataset: its training set; if it was in the storage, its features are deleted.
        untracked: why it could not be published to MLflow; None: it was published, or MLflow is not set.
    """

    trained: TrainedVersion
    decision: Decision
    dataset: TrainingData
    untracked: SkewlessError | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        package, decision, dataset = self.trained.package, self.decision, self.dataset
        gap = {"mode_gap": dataset.gap.as_dict()} if dataset.gap else {}
        return {
            "model": package.name,
            "version": package.version,
            "digest": package.digest,
            "promoted": decision.promote and not decision.by_rollout,
            "reason": decision.reason,
            "decision": decision.as_dict(),
            "metrics": dict(self.trained.metrics),
            "rows": {"train": int(dataset.train.sum()), "test": int(dataset.test.sum()), **dataset.counts},
            "status": {view: dict(counts) for view, counts in dataset.status.items()},
            **({"weights": weights} if (weights := dataset.weight_summary) else {}),
        } | gap


def promote(
    dataset: TrainingData,
    spec: ModelSpec,
    trained: TrainedVersion,
    store: PackageStore,
    now_us: int,
    *,
    state: ProjectState | None = None,
    prepare: Prepare | None = None,
) -> Decision:
    """Compare a new version with the champion, store the decision, and move the alias if the gate passes.

    If the spec has a rollout, the alias does not move: the decision has ``by_rollout``, and the rollout starts.

    Args:
        state: the project's state folder with the last parity verdicts: a version is not promoted if one of its
            views has mismatches.
        prepare: brings a version's data to the online store; a version whose data is incomplete is not promoted.

    Raises:
        ConflictError: the alias moved meanwhile.
    """
    # Read once: the version is compared with this champion, and the alias moves only if it is still the champion.
    holder = store.aliases.get(spec.name, CHAMPION)
    decision = judge(dataset, spec, trained.scores, store, against=holder, state=state)
    decision = check_approvals(decision, store, spec.name, trained.package.version)
    if prepare is not None:
        decision = check_readiness(decision, dataset.plan, prepare)
    record_decision(spec, trained.package.version, decision, store, now_us, expect=holder)
    return decision


def judge(
    dataset: TrainingData,
    spec: ModelSpec,
    scores: Scores,
    store: PackageStore,
    *,
    against: str | None,
    state: ProjectState | None = None,
    plan: FeaturePlan | None = None,
) -> Decision:
    """Return the gate's decision about a version; nothing is changed.

    The champion scores the vectors of its own plan for the same rows.

    Args:
        scores: the version's scores of the dataset's test rows.
        against: the champion's version, if there is one.
        state: see ``promote``.
        plan: the version's plan; None: the dataset's.
    """
    metrics = measure(dataset, spec, scores)
    evidence = GateEvidence(candidate=gate_metric(spec, metrics), baseline=gate_baseline(spec, metrics))
    if against is not None:
        evidence = _add_champion(dataset, spec, evidence, scores, store, against)
    decision = decide(spec.gate, evidence)
    # A gate that passes on training values says nothing about values that serving reads differently.
    skew = "" if state is None else describe_mismatches(plan or dataset.plan, state)
    if skew:
        decision = replace(decision, promote=False, reason=f"{skew}; {decision.reason}")
    # A first version has no champion to share the traffic with.
    by_rollout = against is not None and spec.rollout is not None and spec.rollout.kind != "at_once"
    return replace(decision, by_rollout=by_rollout)


def check_approvals(decision: Decision, store: PackageStore, model: str, version: str) -> Decision:
    """Return the decision; it fails while too few people have approved the version (setting ``approvals``)."""
    if not decision.promote or not store.least_approvals:
        return decision
    people = {approval.by for approval in store.approvals.read(model, version)}
    if len(people) >= store.least_approvals:
        return decision
    reason = f"it passed, and has {len(people)} of {count_text(store.least_approvals, 'approval')}"
    return replace(decision, promote=False, reason=f"{reason}: run `skewless approve {model} {version}`")


def check_readiness(decision: Decision, plan: FeaturePlan, prepare: Prepare) -> Decision:
    """Return the decision; it fails if data of the version is not online and up to date (SEMANTICS 8.5).

    Args:
        plan: the version's pinned plan.
        prepare: brings its data to the online store, and returns the remaining problems.
    """
    # Preparing may build states from a complete log, so only a version that passed is prepared.
    problems = prepare(plan) if decision.promote else []
    if not problems:
        return decision
    return replace(decision, promote=False, reason=f"it passed, but is not ready to be served: {'; '.join(problems)}")


def record_decision(
    spec: ModelSpec, version: str, decision: Decision, store: PackageStore, now_us: int, *, expect: str | None
) -> None:
    """Store a decision, and move the alias if it passed and no rollout does that.

    Args:
        expect: the version that must still be champion, None if there was none.

    Raises:
        ConflictError: the alias moved meanwhile; the decision stays stored.
    """
    store.decisions.add(spec.name, version, {"against": expect, **decision.as_dict()}, now_us)
    if decision.promote and not decision.by_rollout:
        reason = decision.reason
        store.aliases.move(spec.name, CHAMPION, expect=expect, to=version, reason=reason, now_us=now_us)


def describe_mismatches(plan: FeaturePlan, state: ProjectState) -> str:
    """Return a sentence about the model's views with mismatches in the last parity check; empty: none."""
    # Sorted, so that the latest verdict about a view wins.
    verdicts = {item.hash: item for item in sorted(read_last(state, LastParity).values(), key=lambda item: item.at_us)}
    sentences = [
        f"parity found {count_text(verdict.mismatches, 'mismatch', 'mismatches')} in view {view.name!r}"
        for view in plan.all_views
        if (verdict := verdicts.get(view.hash)) and verdict.mismatches
    ]
    return "; ".join(sentences)


def _add_champion(
    dataset: TrainingData, spec: ModelSpec, evidence: GateEvidence, scores: Scores, store: PackageStore, version: str
) -> GateEvidence:
    """Return the evidence with the champion's metric and the gain, or the reason why it cannot be measured."""
    try:
        champion = score_version(dataset, spec, store, version)
    except SkewlessError as error:
        # A champion that cannot be scored must not block a new version, which is the remedy.
        _log.warning("champion_not_comparable", model=spec.name, version=version, error=str(error))
        return replace(evidence, obstacle=error.cause())
    champion_metric = gate_metric(spec, measure(dataset, spec, champion))
    if champion_metric is None:
        return replace(evidence, obstacle=f"its {spec.gate.metric} is undefined on the test rows")
    gate, test = spec.gate, dataset.test
    pair = ScorePair(
        labels=dataset.labels[test],
        candidate=scores,
        champion=champion,
        weights=dataset.weights[test],
        task=spec.task,
        groups=None if dataset.groups is None else dataset.groups[test],
    )
    # Large test sets need fewer resamples for a stable interval, and each resample costs more.
    resamples = min(RESAMPLES, max(_MIN_RESAMPLES, _MAX_RESAMPLED_ROWS // pair.labels.size))
    confidence = DEFAULT_CONFIDENCE if gate.confidence is None else gate.confidence
    columns = {name: each.only(test) for name, each in dataset.slices.items()}
    return replace(
        evidence,
        champion=champion_metric,
        gain=paired_gain(pair, gate.metric, confidence=confidence, resamples=resamples, seed=spec.seed),
        slices=measure_slice_gains(pair, columns, gate, spec.seed),
    )
