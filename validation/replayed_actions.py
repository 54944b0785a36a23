"""Replay of actions: what the score and the declared exploration give is compared with the log (SEMANTICS 10.6)."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from skewless.contract.policy import ListValues
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.predictions.reader import LoggedPredictions
from skewless.validation.replay_report import Cause, Findings

_FIRST_FORMAT = 4  # of files with actions


def compare_actions(model: ServedModel, logged: LoggedPredictions, findings: Findings) -> None:
    """Record every prediction with another action, reasons or propensity than those of its logged score."""
    spec = model.package.spec
    if not spec.actions and not spec.classes:
        return
    lists = np.array([text or "{}" for text in logged.lists], dtype=object)
    for text in sorted(set(lists.tolist())):
        _compare(model, logged, np.flatnonzero(lists == text), model.past_lists(json.loads(text)), findings)


def _compare(
    model: ServedModel, logged: LoggedPredictions, own: npt.NDArray[np.intp], lists: ListValues, findings: Findings
) -> None:
    """Compare the predictions of some versions of lists.

    Args:
        own: their offsets.
    """
    spec, at = model.package.spec, own.tolist()
    rows = None
    if logged.source != "vectors" and (model.policy is not None or spec.explore is not None):
        # The server's own parser, so that values have the types by which they are hashed.
        rows = model.parser.parse_rows([json.loads(logged.inputs[i]) for i in at])
    explored = None
    if spec.explore is not None:
        explored = spec.explore.choose_rows(model.name, [logged.ids[i] for i in at], rows)
    parsed = None if rows is None or model.policy is None else model.parser.build_rows(rows)
    plain = model.act(logged.scores[own], logged.vectors[own], parsed, None, lists)
    taken = model.act(logged.scores[own], logged.vectors[own], parsed, explored, lists)
    for offset, i in enumerate(at):
        # No reply has what a shadow would do, so it does not explore.
        expected = plain if logged.roles[i] == "shadow" else taken
        action, propensity = expected.taken[offset], next(iter(expected.propensities[offset : offset + 1]), None)
        reasons = expected.reasons[offset] if expected.reasons else None
        known = None if np.isnan(logged.propensities[i]) else float(logged.propensities[i])
        said = logged.reasons[i]
        is_same = (action, propensity) == (logged.actions[i], known)
        is_same &= reasons == (None if said is None else tuple(said))
        if not is_same and logged.formats[i] >= _FIRST_FORMAT:
            before = f"{logged.actions[i]} with propensity {known} for {said} logged"
            detail = f"{before}, {action} with {propensity} for {reasons} recomputed"
            findings.add(logged.ids[i], Cause.ACTION, spec.name, detail)
