"""The roles of a model's versions, and the decisions about them with their evidence, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

from skewless.contract.plain_record import PlainRecord
from skewless.contract.traffic import TrafficPolicy
from skewless.operations.models.versions import read_moves
from skewless.workspace import Workspace

_Change = tuple[TrafficPolicy | None, TrafficPolicy]  # the policy before, and the policy


@dataclass(frozen=True, kw_only=True)
class ModelDecision(PlainRecord):
    """A decision about a model.

    Args:
        at_us: UTC microseconds.
        change: ``passed`` or ``refused`` by the gate; ``promoted``, ``rolled back`` or only ``traffic`` by a policy;
            or ``alias NAME``, moved by hand or at once.
        to: the version, or the versions with their shares.
        cause: the recorded reason.
        evidence: the numbers behind it, without those of the guardrails.
        guardrails: verdicts, each as ``Verdict.as_dict``.
    """

    at_us: int
    change: str
    to: str
    cause: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    guardrails: Sequence[Mapping[str, Any]] = ()


def read_decisions(project: Workspace, model: str, *, most: int) -> list[ModelDecision]:
    """Return the decisions about a model, the latest first: by its gate, by its rollouts, and by hand.

    Args:
        most: number of decisions; as many are read of each kind.
    """
    # One more, because the kind of a change follows from the policy before.
    history = project.store.traffic.history(model, most=most + 1)
    first = history[:1] if len(history) <= most else []
    changes: list[_Change] = [*((None, policy) for policy in first), *pairwise(history)]
    decisions = [*_moves(read_moves(project, model, most=most), changes), *map(_of_policy, changes)]
    decisions += map(_of_gate, islice(project.store.decisions.read_latest_first(model, most), most))
    decisions.sort(key=lambda decision: -decision.at_us)
    return decisions[:most]


def _moves(moves: Sequence[Mapping[str, Any]], changes: Sequence[_Change]) -> Iterator[ModelDecision]:
    """Yield the changes of aliases, except the end of a rollout, which its policy shows."""
    left = list(moves)
    for before, policy in changes:
        if change_of(before, policy) == "promoted":
            same = [move for move in left if (move["alias"], move["to"]) == ("champion", policy.champion)]
            if same:
                left.remove(min(same, key=lambda move: abs(move["at_us"] - policy.since_us)))
    for move in left:
        yield ModelDecision(at_us=move["at_us"], change=f"alias {move['alias']}", to=move["to"], cause=move["reason"])


def _of_policy(change: _Change) -> ModelDecision:
    before, policy = change
    evidence = policy.evidence or {}
    return ModelDecision(
        at_us=policy.since_us,
        change=change_of(before, policy),
        to=policy_text(policy),
        cause=policy.reason,
        evidence={name: value for name, value in evidence.items() if name != "guardrails"},
        guardrails=evidence.get("guardrails") or (),
    )


def _of_gate(record: Mapping[str, Any]) -> ModelDecision:
    gain = record.get("gain") or {}
    evidence = {name: record.get(name) for name in ("candidate", "champion", "baseline")}
    evidence |= {name: gain.get(name) for name in ("gain", "low", "high", "confidence")}
    return ModelDecision(
        at_us=record["at_us"],
        change="passed" if record.get("promote") else "refused",
        to=record["version"],
        cause=record.get("reason", ""),
        evidence={name: value for name, value in evidence.items() if value is not None},
    )


def change_of(before: TrafficPolicy | None, policy: TrafficPolicy) -> str:
    """Return the change of a policy: ``promoted``, ``rolled back``, or only ``traffic``."""
    if before is None or policy.phase != "champion":
        return "traffic"
    if policy.champion == before.champion:
        return "rolled back" if before.challenger else "traffic"
    return "promoted" if policy.champion == before.challenger else "rolled back"


def policy_text(policy: TrafficPolicy) -> str:
    """Return the versions of a policy with their shares, in words."""
    if policy.phase == "champion" or policy.challenger is None:
        return f"{policy.champion} for all"
    if policy.phase == "shadow":
        return f"{policy.champion}, {policy.challenger} as shadow"
    return f"{policy.champion}, {policy.challenger} for {policy.share:.0%} ({policy.phase})"


def role(version: str, policy: TrafficPolicy | None, champion: str | None) -> str:
    """Return the role of a version by the current policy, or by its alias without a policy."""
    if policy is None:
        return "champion" if version == champion else ""
    if version == policy.champion:
        return "champion"
    if version == policy.challenger and policy.phase in {"canary", "ab"}:
        return "challenger"
    return "shadow" if version in {policy.challenger, *policy.shadows} else ""


def traffic_share(version: str, policy: TrafficPolicy | None, champion: str | None) -> float:
    """Return the share of the entities that a version answers."""
    own_role = role(version, policy, champion)
    if policy is None or policy.phase not in {"canary", "ab"}:
        return float(own_role == "champion")
    return {"champion": 1.0 - policy.share, "challenger": policy.share}.get(own_role, 0.0)
