"""What the traffic of a model is next: a pure function of the policy in force and what both arms have shown.

::

    champion -> shadow -> canary step 0, 1, ... -> champion (the new version)
                  |            |
                  |            ab (fixed shares) -> champion (the winner)
                  └──── a breach at any point: champion (the old version)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from math import isnan
from typing import Any, Literal

from skewless.contract.errors import ConflictError
from skewless.contract.lifecycle import Rollout
from skewless.contract.score_differences import ScoreDifferences
from skewless.contract.traffic import TrafficPolicy
from skewless.training.rollout.evidence import Evidence
from skewless.training.rollout.guardrails import Verdict, judge
from skewless.training.rollout.sequential import InterimAnalysis, look

Kind = Literal["begin", "forward", "won", "back", "again", "follow"]
_QUANTILES = (0.01, 0.5, 0.99)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class TrafficChange:
    """One change of a model's traffic.

    Args:
        kind: ``begin``, ``forward`` (a larger share), ``won`` (the challenger is champion), ``back`` (the champion
            has everything again), ``again`` (the clock went back: the step starts over), ``follow`` (the alias was
            moved by hand: the traffic follows).
        policy: what shall be in force.
    """

    kind: Kind
    policy: TrafficPolicy


def begin(
    current: TrafficPolicy | None, rollout: Rollout, *, champion: str | None, challenger: str, moves: int, now_us: int
) -> TrafficChange | None:
    """Return how a version starts to take over; None: it is doing so already, or has done so.

    Args:
        champion: holder of the alias; None: nobody, so the version takes over at once.
        challenger: the version.
        moves: how often the alias has moved.

    Raises:
        ConflictError: another version is taking over.
    """
    if challenger == champion:
        return None
    if current is not None and current.challenger is not None:
        if current.challenger == challenger:
            return None
        raise ConflictError(
            f"rollout of version {current.challenger}",
            f"is under way, so that of version {challenger} cannot begin",
            fix="wait for its end, or end it with `skewless rollback`",
        )
    number = current.number + 1 if current else 1
    opened = TrafficPolicy(
        number=number,
        phase="champion",
        champion=champion or challenger,
        challenger=challenger,
        sticky=rollout.sticky,
        salt=f"{challenger}.{number}",
        since_us=now_us,
        moves=moves,
    )
    if champion is None:
        return TrafficChange(kind="won", policy=_settled(opened, challenger, "there was no champion", {}))
    if rollout.shadow > timedelta(0):
        reason = f"version {challenger} is scored beside the champion for {rollout.shadow}"
        return TrafficChange(kind="begin", policy=replace(opened, phase="shadow", shadows=(challenger,), reason=reason))
    after = _after_shadow(opened, rollout, "it begins", {})
    return after if after.kind == "won" else replace(after, kind="begin")


def next_change(policy: TrafficPolicy, rollout: Rollout, evidence: Evidence, now_us: int) -> TrafficChange | None:
    """Return what changes now; None: nothing.

    A step is left only once it has lasted ``step`` and both arms were asked ``least_requests`` times, and one call
    leaves one step: a clock that jumps ahead skips nothing. One that went back further than a step starts it over.
    """
    if policy.challenger is None:
        return None
    verdicts = judge(rollout.guardrails, evidence)
    found = evidence_of(evidence, verdicts)
    against = _against(policy, evidence, verdicts)
    if against:
        return back(policy, against, now_us, found)
    elapsed = (now_us - policy.since_us) * _MICROSECOND
    if elapsed < -_length(policy, rollout):
        return TrafficChange(
            kind="again", policy=_next(policy, now_us, "the clock went back: the step starts over", found)
        )
    if policy.phase == "ab":
        return _tested(policy, rollout, evidence, elapsed, now_us, found)
    if elapsed < _length(policy, rollout) or evidence.requests < rollout.guardrails.least_requests:
        return None
    held = timedelta(seconds=round(elapsed.total_seconds()))
    reason = f"all guardrails held for {held} and {evidence.requests:,} requests of each arm"
    return _larger(_next(policy, now_us, reason, found), rollout, reason, found)


def back(policy: TrafficPolicy, reason: str, now_us: int, found: Mapping[str, Any]) -> TrafficChange:
    """Return the end of a rollout in which the champion has everything again."""
    return TrafficChange(
        kind="back", policy=_settled(_next(policy, now_us, reason, found), policy.champion, reason, found)
    )


def follow(policy: TrafficPolicy, holder: str, moves: int, reason: str, now_us: int) -> TrafficChange | None:
    """Return the policy that follows an alias which was moved by hand since the policy was written, else None."""
    if policy.champion == holder or policy.moves >= moves:
        return None
    said = f"the alias champion was moved to version {holder}: {reason}"
    opened = _next(replace(policy, moves=moves), now_us, said, {})
    return TrafficChange(kind="follow", policy=_settled(opened, holder, said, {}))


def return_to(
    policy: TrafficPolicy | None, *, champion: str, version: str, moves: int, reason: str, now_us: int
) -> TrafficChange:
    """Return the policy under which an earlier champion has everything again."""
    opened = policy or TrafficPolicy(number=0, phase="champion", champion=champion)
    moved = _next(replace(opened, moves=moves), now_us, reason, {})
    return TrafficChange(kind="back", policy=_settled(moved, version, reason, {}))


def evidence_of(evidence: Evidence, verdicts: list[Verdict]) -> dict[str, Any]:
    """Return what a change rests on, as plain JSON values."""
    return {
        "requests": {"champion": evidence.champion.requests, "challenger": evidence.challenger.requests},
        "guardrails": [verdict.as_dict() for verdict in verdicts],
        "differences": _differences(evidence.challenger.differences),
    }


def _differences(found: ScoreDifferences) -> dict[str, Any] | None:
    """Return how a shadow's scores differ from those that were answered, on the same vectors."""
    if not found.rows:
        return None
    rank = found.rank_correlation
    return {
        "rows": found.rows,
        "mean": found.mean,
        "rank_correlation": None if isnan(rank) else rank,
        "quantiles": dict(zip(map(str, _QUANTILES), found.quantiles(_QUANTILES).tolist(), strict=True)),
    }


def _larger(policy: TrafficPolicy, rollout: Rollout, reason: str, found: Mapping[str, Any]) -> TrafficChange:
    if policy.phase == "shadow":
        return _after_shadow(replace(policy, shadows=()), rollout, reason, found)
    return _canary(policy, rollout, policy.step + 1, reason, found)


def _after_shadow(policy: TrafficPolicy, rollout: Rollout, reason: str, found: Mapping[str, Any]) -> TrafficChange:
    if rollout.kind == "ab":
        said = f"{reason}; an A/B test with {rollout.share:.0%} of the entities"
        return TrafficChange(kind="forward", policy=replace(policy, phase="ab", share=rollout.share, reason=said))
    return _canary(policy, rollout, 0, reason, found)


def _canary(policy: TrafficPolicy, rollout: Rollout, step: int, reason: str, found: Mapping[str, Any]) -> TrafficChange:
    steps = rollout.steps if rollout.kind == "canary" else ()
    if step >= len(steps):
        return TrafficChange(kind="won", policy=_settled(policy, _challenger(policy), reason, found))
    said = f"{reason}; {steps[step]:.4g} of the entities"
    return TrafficChange(
        kind="forward", policy=replace(policy, phase="canary", share=steps[step], step=step, reason=said)
    )


def _against(policy: TrafficPolicy, evidence: Evidence, verdicts: list[Verdict]) -> str:
    """Return what sends traffic back now; empty: nothing."""
    if evidence.problem:
        return f"version {policy.challenger} cannot answer: {evidence.problem}"
    return "; ".join(verdict.sentence() for verdict in verdicts if verdict.breached)


def _tested(
    policy: TrafficPolicy,
    rollout: Rollout,
    evidence: Evidence,
    elapsed: timedelta,
    now_us: int,
    found: Mapping[str, Any],
) -> TrafficChange | None:
    seen = look(evidence.losses, rollout.alpha) if evidence.losses else None
    tested = {**found, "test": seen.as_dict() if seen else None}
    if seen is not None and seen.winner == "challenger":
        reason = f"the challenger's loss is lower: {_told(seen)}"
        moved = _next(policy, now_us, reason, tested)
        return TrafficChange(kind="won", policy=_settled(moved, _challenger(policy), reason, tested))
    if seen is not None and seen.winner == "champion":
        return back(policy, f"the champion's loss is lower: {_told(seen)}", now_us, tested)
    if elapsed >= rollout.longest:
        return back(policy, f"the A/B test has not decided within {rollout.longest}", now_us, tested)
    return None


def _told(seen: InterimAnalysis) -> str:
    return f"difference {seen.difference:.4g}, between {seen.low:.4g} and {seen.high:.4g} at any look"


def _length(policy: TrafficPolicy, rollout: Rollout) -> timedelta:
    """Return how long the phase lasts at least; of an A/B test, at most."""
    return {"shadow": rollout.shadow, "ab": rollout.longest}.get(policy.phase, rollout.step)


def _next(policy: TrafficPolicy, now_us: int, reason: str, found: Mapping[str, Any]) -> TrafficPolicy:
    return replace(policy, number=policy.number + 1, since_us=now_us, reason=reason, evidence=found or None)


def _settled(policy: TrafficPolicy, champion: str, reason: str, found: Mapping[str, Any]) -> TrafficPolicy:
    """Return a policy under which one version has everything."""
    return TrafficPolicy(
        number=policy.number,
        phase="champion",
        champion=champion,
        since_us=policy.since_us,
        moves=policy.moves,
        reason=reason,
        evidence=found or None,
    )


def _challenger(policy: TrafficPolicy) -> str:
    return policy.challenger or policy.champion
