"""Promotion: the alias moves to a new version only on evidence from the same rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from infra.last_parity import last_parity
from infra.packages.aliases import Aliases
from infra.served_model import load_model
from skewless.errors import PackageError
from skewless.plan import FeaturePlan
from skewless.spec import LOWER_IS_BETTER, Gate, ModelSpec
from training.dataset import Dataset
from training.evaluation import gate_metric
from training.train import Trained, measure

CHAMPION = "champion"
_ROUNDING = 1 + 1e-9
_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a version becomes champion, and why.

    Args:
        candidate: the gate's metric of the new version.
        champion: the same of the champion on the same rows; None without a comparable champion.
    """

    promote: bool
    reason: str
    candidate: float | None
    champion: float | None


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """A trained version, and whether it became champion."""

    trained: Trained
    decision: Decision
    dataset: Dataset


def decide(gate: Gate, candidate: float | None, champion: float | None) -> Decision:
    """Return the gate's decision.

    >>> decide(Gate(metric="auc", floor=0.6), 0.7, 0.69).promote
    True
    """

    def verdict(reason: str, *, promote: bool) -> Decision:
        return Decision(promote=promote, reason=reason, candidate=candidate, champion=champion)

    if candidate is None:
        return verdict(f"{gate.metric} does not exist on the test rows", promote=False)
    sign = -1.0 if gate.metric in LOWER_IS_BETTER else 1.0
    if gate.floor is not None and sign * candidate < sign * gate.floor:
        return verdict(f"{gate.metric} {candidate:.4f} misses the floor {gate.floor:.4f}", promote=False)
    if champion is None:
        return verdict(f"{gate.metric} {candidate:.4f}, no champion to compare with", promote=True)
    gain = sign * (candidate - champion)
    text = f"{gate.metric} {candidate:.4f} against the champion's {champion:.4f} on the same rows"
    # 0.69 - 0.70 is a little less than -0.01 in floating point.
    return verdict(text, promote=gain >= -gate.tolerance * _ROUNDING)


def promote(
    dataset: Dataset, spec: ModelSpec, trained: Trained, packages: Path, now_us: int, *, state: Path | None = None
) -> Decision:
    """Compare a new version with the champion and move the alias if the gate allows.

    Args:
        state: the project's state folder, with the last verdict of parity: a model whose views are online not what
            the log says is not promoted.

    Raises:
        ConflictError: the alias moved meanwhile.
    """
    aliases = Aliases(packages)
    holder = aliases.get(spec.name, CHAMPION)
    measured = _yardstick(dataset, spec, packages, holder) if holder else None
    candidate = gate_metric(spec, trained.metrics)
    decision = decide(spec.gate, candidate, gate_metric(spec, measured) if measured else None)
    skew = "" if state is None else skewed(dataset.plan, state)
    if skew:
        decision = replace(decision, promote=False, reason=f"{skew}; {decision.reason}")
    if decision.promote:
        version = trained.package.version
        aliases.move(spec.name, CHAMPION, expect=holder, to=version, reason=decision.reason, now_us=now_us)
    return decision


def skewed(plan: FeaturePlan, state: Path) -> str:
    """Return which views of a model parity last found different from the log; empty: none."""
    verdicts = last_parity(state)
    found = [
        f"parity found {verdict.mismatches:,} mismatches in view {view.name!r}"
        for view in plan.all_views
        if (verdict := verdicts.get(view.name)) and verdict.hash == view.hash and verdict.mismatches
    ]
    return "; ".join(found)


def _yardstick(dataset: Dataset, spec: ModelSpec, packages: Path, version: str) -> dict[str, Any] | None:
    try:
        return champion_metrics(dataset, spec, packages, version)
    except PackageError as error:
        # An altered champion measures nothing; a new version is the remedy that its own error names.
        _log.warning("champion_unreadable", model=spec.name, version=version, error=str(error))
        return None


def champion_metrics(dataset: Dataset, spec: ModelSpec, packages: Path, version: str) -> dict[str, Any] | None:
    """Return the champion's quality on the dataset's test rows; None where it needs other views or has another task."""
    champion = load_model(packages, spec.name, version)
    try:
        if (champion.package.spec.task, champion.package.spec.classes) != (spec.task, spec.classes):
            return None
        matrix = dataset.matrix_for(champion.assembler)
        if matrix is None:
            return None
        scores = champion.runtime.score(np.ascontiguousarray(matrix[dataset.test]))
    finally:
        champion.runtime.close()
    return measure(dataset, spec, scores)
