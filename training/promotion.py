"""Promotion: the alias moves to a new version only on evidence from the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from skewless.contract.errors import SkewlessError
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.infra.packages.aliases import Aliases
from skewless.infra.packages.decisions import Decisions
from skewless.infra.packages.store import PackageStore
from skewless.infra.runtimes.port import Scores
from skewless.infra.verdicts.last_verdicts import read_last_parity
from skewless.training.dataset import Dataset
from skewless.training.decision import Decision, GateEvidence, decide
from skewless.training.quality import measure, version_scores
from skewless.training.slices import DEFAULT_CONFIDENCE, slice_gains
from skewless.training.train import TrainedVersion
from skewless.validation.evaluation.bootstrap import RESAMPLES, ScorePair, paired_gain
from skewless.validation.evaluation.evaluation import gate_baseline, gate_metric

CHAMPION = "champion"
# Brings what a pinned plan reads to the online store; returns what is lacking still, a sentence each.
Prepare = Callable[[FeaturePlan], list[str]]
_DRAWS = 200_000_000  # rows that all resamples together draw: seconds
_FEWEST_RESAMPLES = 200
_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """A trained version, and whether it became champion.

    Args:
        untracked: why it could not be published, where MLflow is set and away.
    """

    trained: TrainedVersion
    decision: Decision
    dataset: Dataset
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
        } | gap


def promote(
    dataset: Dataset,
    spec: ModelSpec,
    trained: TrainedVersion,
    store: PackageStore,
    now_us: int,
    *,
    state: Path | None = None,
    prepare: Prepare | None = None,
) -> Decision:
    """Compare a new version with the champion, keep the decision, and move the alias if the gate allows.

    Where the spec has a rollout, a version that passed takes over by it, not here: the decision says so.

    Args:
        state: the project's state folder, with the last verdict of parity: a model whose views are online not what
            the log says is not promoted.
        prepare: brings what a version reads to the online store; a version that lacks something is not promoted.

    Raises:
        ConflictError: the alias moved meanwhile.
    """
    holder = Aliases(store.root).get(spec.name, CHAMPION)
    decision = judge(dataset, spec, trained.scores, store, against=holder, state=state)
    if prepare is not None:
        decision = once_ready(decision, dataset.plan, prepare)
    settle(spec, trained.package.version, decision, store.root, now_us, expect=holder)
    return decision


def judge(
    dataset: Dataset,
    spec: ModelSpec,
    scores: Scores,
    store: PackageStore,
    *,
    against: str | None,
    state: Path | None = None,
    plan: FeaturePlan | None = None,
) -> Decision:
    """Return the gate's decision about a version; nothing is changed.

    The champion is scored on the vectors of its own plan for the same rows.

    Args:
        scores: the version's, of the dataset's test rows.
        against: the champion's version, if there is one.
        state: as of ``promote``.
        plan: the version's; None: the dataset's.
    """
    metrics = measure(dataset, spec, scores)
    evidence = GateEvidence(candidate=gate_metric(spec, metrics), baseline=gate_baseline(spec, metrics))
    if against is not None:
        evidence = _compared(dataset, spec, evidence, scores, store, against)
    decision = decide(spec.gate, evidence)
    skew = "" if state is None else skewed(plan or dataset.plan, state)
    if skew:
        decision = replace(decision, promote=False, reason=f"{skew}; {decision.reason}")
    by_rollout = against is not None and spec.rollout is not None and spec.rollout.kind != "at_once"
    return replace(decision, by_rollout=by_rollout)


def once_ready(decision: Decision, plan: FeaturePlan, prepare: Prepare) -> Decision:
    """Return a decision that lets a version pass only if all that it reads is online and up to date (SEMANTICS 8.5).

    Args:
        plan: what the version pins.
        prepare: brings that to the online store, and returns what is lacking still.
    """
    lacking = prepare(plan) if decision.promote else []
    if not lacking:
        return decision
    return replace(decision, promote=False, reason=f"it passed, but cannot be served yet: {'; '.join(lacking)}")


def settle(
    spec: ModelSpec, version: str, decision: Decision, packages: Path, now_us: int, *, expect: str | None
) -> None:
    """Keep a decision, and move the alias if it allows and no rollout is to do so.

    Args:
        expect: the version that must still be champion, None if there was none.

    Raises:
        ConflictError: the alias moved meanwhile; the decision is kept all the same.
    """
    Decisions(packages).add(spec.name, version, {"against": expect, **decision.as_dict()}, now_us)
    if decision.promote and not decision.by_rollout:
        reason = decision.reason
        Aliases(packages).move(spec.name, CHAMPION, expect=expect, to=version, reason=reason, now_us=now_us)


def skewed(plan: FeaturePlan, state: Path) -> str:
    """Return which views of a model parity last found different from the log; empty: none."""
    verdicts = {item.hash: item for item in sorted(read_last_parity(state).values(), key=lambda item: item.at_us)}
    found = [
        f"parity found {verdict.mismatches:,} mismatches in view {view.name!r}"
        for view in plan.all_views
        if (verdict := verdicts.get(view.hash)) and verdict.mismatches
    ]
    return "; ".join(found)


def _compared(
    dataset: Dataset, spec: ModelSpec, evidence: GateEvidence, scores: Scores, store: PackageStore, version: str
) -> GateEvidence:
    """Return the evidence with the champion's part: its metric and the gain, or why it cannot be measured."""
    try:
        champion = version_scores(dataset, spec, store, version)
    except SkewlessError as error:
        # A champion that cannot be scored measures nothing; a new version is the remedy.
        _log.warning("champion_not_comparable", model=spec.name, version=version, error=str(error))
        return replace(evidence, obstacle=error.cause())
    measured = gate_metric(spec, measure(dataset, spec, champion))
    if measured is None:
        return replace(evidence, obstacle=f"its {spec.gate.metric} does not exist on the test rows")
    gate, pair = spec.gate, _test_rows(dataset, spec, scores, champion)
    resamples = min(RESAMPLES, max(_FEWEST_RESAMPLES, _DRAWS // pair.labels.size))
    confidence = DEFAULT_CONFIDENCE if gate.confidence is None else gate.confidence
    columns = {name: each.only(dataset.test) for name, each in dataset.slices.items()}
    return replace(
        evidence,
        champion=measured,
        gain=paired_gain(pair, gate.metric, confidence=confidence, resamples=resamples, seed=spec.seed),
        slices=slice_gains(pair, columns, gate, spec.seed),
    )


def _test_rows(dataset: Dataset, spec: ModelSpec, candidate: Scores, champion: Scores) -> ScorePair:
    test = dataset.test
    return ScorePair(
        labels=dataset.labels[test],
        candidate=candidate,
        champion=champion,
        weights=dataset.weights[test],
        task=spec.task,
        groups=None if dataset.groups is None else dataset.groups[test],
    )
