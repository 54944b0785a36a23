"""Replay of actions: what the score and the declared exploration give is compared with the log (SEMANTICS 10.6)."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from skewless.contract.actions import Explore, decide, most_likely
from skewless.contract.request import RowParser
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.predictions.reader import LoggedPredictions
from skewless.validation.replay_report import Cause, Findings

_FIRST_FORMAT = 4  # of files with actions


def compare_actions(model: ServedModel, logged: LoggedPredictions, findings: Findings) -> None:
    """Record every prediction with another action or propensity than those of its logged score."""
    spec = model.package.spec
    if not spec.decisions and not spec.classes:
        return
    actions: Sequence[str | None] = (
        decide(spec.decisions, logged.scores) if spec.decisions else most_likely(spec.classes, logged.scores)
    )
    propensities = np.full(len(actions), np.nan)
    if spec.explore is not None:
        # No reply has what a shadow would do.
        is_shadow = np.array([role == "shadow" for role in logged.roles])
        taken, probabilities = spec.explore.act(actions, _find_explored(model, spec.explore, logged))
        actions = [own if shadow else act for own, act, shadow in zip(actions, taken, is_shadow.tolist(), strict=True)]
        propensities = np.where(is_shadow, np.nan, probabilities)
    is_same = (propensities == logged.propensities) | (np.isnan(propensities) & np.isnan(logged.propensities))
    is_same &= np.array([left == right for left, right in zip(actions, logged.actions, strict=True)], dtype=np.bool_)
    for i in np.flatnonzero(~is_same & (logged.formats >= _FIRST_FORMAT)).tolist():
        before = f"{logged.actions[i]} with propensity {logged.propensities[i]} logged"
        detail = f"{before}, {actions[i]} with {propensities[i]} recomputed"
        findings.add(logged.ids[i], Cause.ACTION, spec.name, detail)


def _find_explored(model: ServedModel, explore: Explore, logged: LoggedPredictions) -> list[bool]:
    if not explore.sticky:
        return explore.choose(model.name, [(name,) for name in logged.ids])
    if logged.source == "vectors":
        return [False] * len(logged.ids)
    # The server's own parser, so that values have the types by which they are hashed.
    columns = RowParser(model.plan).parse_rows([json.loads(text) for text in logged.inputs])
    return explore.choose(model.name, zip(*(columns[name] for name in explore.sticky), strict=True))
