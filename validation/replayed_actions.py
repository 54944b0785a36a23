"""Replay of actions: what the score and the declared exploration give is compared with the log (SEMANTICS 10.6).

A list that has lost the value of an erased entity may have had the value of a row (SEMANTICS 11.5). Where the logged
action follows from that, it cannot be proven any more; any other action is still a difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.policy import ListValues
from skewless.infra.models.packages.served_model import RowActions, ServedModel
from skewless.infra.records.predictions.reader import LoggedPredictions
from skewless.validation.replay_report import Cause, Findings


def compare_actions(model: ServedModel, logged: LoggedPredictions, findings: Findings) -> None:
    """Record every prediction with another action, reasons or propensity than those of its logged score."""
    spec = model.package.spec
    if not spec.actions and not spec.classes:
        return
    lists = np.array([text or "{}" for text in logged.lists], dtype=object)
    for text in sorted(set(lists.tolist())):
        _compare(model, logged, np.flatnonzero(lists == text), json.loads(text), findings)


class _Action(NamedTuple):
    """The logged or recomputed action about a row."""

    action: str | None
    propensity: float | None
    reasons: tuple[str, ...] | None

    @classmethod
    def of(cls, actions: RowActions, offset: int) -> _Action:
        propensity = next(iter(actions.propensities[offset : offset + 1]), None)
        return cls(actions.taken[offset], propensity, actions.reasons[offset] if actions.reasons else None)

    @classmethod
    def of_log(cls, logged: LoggedPredictions, i: int) -> _Action:
        propensity = None if np.isnan(logged.propensities[i]) else float(logged.propensities[i])
        said = logged.reasons[i]
        return cls(logged.actions[i], propensity, None if said is None else tuple(said))

    def __str__(self) -> str:
        return f"{self.action} with propensity {self.propensity} for {self.reasons}"


class _EveryValue(frozenset[str]):
    """A list that has every value."""

    def __contains__(self, _: object) -> bool:
        return True


def _compare(
    model: ServedModel,
    logged: LoggedPredictions,
    own: npt.NDArray[np.intp],
    numbers: dict[str, int],
    findings: Findings,
) -> None:
    """Compare the predictions of some versions of lists.

    Args:
        own: their offsets.
        numbers: version of each list.
    """
    versions, at = model.past_lists(numbers), own.tolist()
    lists = {name: (version.number, frozenset(version.values)) for name, version in versions.items()}
    act = _open_policy(model, logged, own)
    before, after = [_Action.of_log(logged, i) for i in at], act(lists)
    different = [k for k in range(len(at)) if before[k] != after[k]]
    if not different:
        return
    erased = [name for name, version in versions.items() if version.erased]
    others = [act(other) for other in _restore_lists(lists, erased)]
    for k in different:
        cause = Cause.ERASED_LIST if any(before[k] == other[k] for other in others) else Cause.ACTION
        findings.add(logged.ids[at[k]], cause, model.package.spec.name, f"{before[k]} logged, {after[k]} recomputed")


def _open_policy(
    model: ServedModel, logged: LoggedPredictions, own: npt.NDArray[np.intp]
) -> Callable[[ListValues], Sequence[_Action]]:
    """Return a function of versions of lists that returns what would be done about some predictions."""
    spec, at = model.package.spec, own.tolist()
    rows = None
    if logged.source != "vectors" and (model.policy is not None or spec.explore is not None):
        # The server's own parser, so that values have the types by which they are hashed.
        rows = model.parser.parse_rows([json.loads(logged.inputs[i]) for i in at])
    explored = None
    if spec.explore is not None:
        explored = spec.explore.choose_rows(model.name, [logged.ids[i] for i in at], rows)
    parsed = None if rows is None or model.policy is None else model.parser.build_rows(rows)

    def act(lists: ListValues) -> list[_Action]:
        plain = model.act(logged.scores[own], logged.vectors[own], parsed, None, lists)
        taken = model.act(logged.scores[own], logged.vectors[own], parsed, explored, lists)
        # No reply has what a shadow would do, so it does not explore.
        return [_Action.of(plain if logged.roles[i] == "shadow" else taken, k) for k, i in enumerate(at)]

    return act


def _restore_lists(lists: ListValues, erased: Sequence[str]) -> Iterator[ListValues]:
    """Yield the lists as they may have been: some that have lost values had that of the row."""
    for size in range(1, len(erased) + 1):
        for names in combinations(erased, size):
            yield {**lists, **{name: (lists[name][0], _EveryValue()) for name in names}}
