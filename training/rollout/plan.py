"""Decides the next traffic policy of a model: a pure function of the current policy and the evidence of both arms.

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
from skewless.contract.readable import duration_text, length_text
from skewless.contract.score_differences import ScoreDifferences
from skewless.contract.traffic import TrafficPolicy
from skewless.training.rollout.evidence import Evidence
from skewless.training.rollout.guardrails import Verdict, judge
from skewless.training.rollout.sequential import InterimAnalysis, analyse

Kind = Literal["begin", "forward", "won", "back", "again", "follow"]
_QUANTILES = (0.01, 0.5, 0.99)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class TrafficChange:
    """One change of a model's traffic.

    Args:
        kind: ``begin``, ``forward`` (a larger share), ``won`` (the challenger becomes champion), ``back`` (all traffic
            goes back to the champion), ``again`` (the clock was set back: the step restarts), ``follow`` (somebody
            moved the alias: the traffic follows).
        policy: the new policy.
    """

    kind: Kind
    policy: TrafficPolicy


def start_rollout(
    current: TrafficPolicy | None, rollout: Rollout, *, champion: str | None, challenger: str, moves: int, now_us: int
) -> TrafficChange | None:
    """Return the change that starts the rollout of a version; None: it is in a rollout, or is the champion.

    Args:
        champion: holder of the alias; None: the alias is not set, so the version becomes champion immediately.
        challenger: the version.
        moves: number of moves of the alias.

    Raises:
        ConflictError: another version is in a rollout.
    """
    if challenger == champion:
        return None
    if current is not None and current.challenger is not None:
        if current.challenger == challenger:
            return None
        raise ConflictError(
            f"rollout of version {current.challenger}",
            f"is in progress, so the rollout of version {challenger} cannot start",
            fix="wait for its end, or end it with `skewless rollback`",
        )
    number = current.number + 1 if current else 1
    policy = TrafficPolicy(
        number=number,
        phase="champion",
        champion=champion or challenger,
        challenger=challenger,
        sticky=rollout.sticky,
        # Fixed for the whole rollout: an entity of the challenger stays with it as the share grows.
        salt=f"{challenger}.{number}",
        since_us=now_us,
        moves=moves,
    )
    if champion is None:
        return TrafficChange(
            kind="won", policy=_end_rollout(replace(policy, reason="the model had no champion"), challenger)
        )
    if rollout.shadow > timedelta(0):
        length = length_text(rollout.shadow // _MICROSECOND)
        reason = f"version {challenger} runs as a shadow of the champion for {length}"
        return TrafficChange(kind="begin", policy=replace(policy, phase="shadow", shadows=(challenger,), reason=reason))
    change = _end_shadow(replace(policy, reason="the rollout starts"), rollout)
    return change if change.kind == "won" else replace(change, kind="begin")


def next_change(policy: TrafficPolicy, rollout: Rollout, evidence: Evidence, now_us: int) -> TrafficChange | None:
    """Return the change to make now; None: nothing changes.

    A step ends after its duration, if both arms have had ``least_requests`` requests. One call advances one step, so
    a clock that jumps ahead skips no step. If the clock was set back by more than a step, the step restarts.
    """
    if policy.challenger is None:
        return None
    verdicts = judge(rollout.guardrails, evidence)
    numbers = encode_evidence(evidence, verdicts)
    # Before the clock is read: a breach ends the rollout at any time, even if the clock was set back.
    reason = "; ".join(verdict.sentence() for verdict in verdicts if verdict.breached)
    if evidence.problem:
        reason = f"version {policy.challenger} cannot serve: {evidence.problem}"
    if reason:
        return roll_back(policy, reason, now_us, numbers)
    elapsed = (now_us - policy.since_us) * _MICROSECOND
    # A smaller correction of the clock only lengthens the step.
    if elapsed < -phase_duration(policy, rollout):
        reason = "the clock was set back: the step restarts"
        return TrafficChange(kind="again", policy=_next_policy(policy, now_us, reason, numbers))
    if policy.phase == "ab":
        return _analyse_ab_test(policy, rollout, evidence, elapsed, now_us, numbers)
    # Time alone proves nothing: without requests the guardrails have judged nothing.
    if elapsed < phase_duration(policy, rollout) or evidence.requests < rollout.guardrails.least_requests:
        return None
    duration = duration_text(elapsed.total_seconds())
    reason = f"all guardrails held for {duration} and {evidence.requests:,} requests of each arm"
    after = _next_policy(policy, now_us, reason, numbers)
    has_shadow = policy.phase == "shadow"
    return _end_shadow(after, rollout) if has_shadow else _advance_canary(after, rollout, after.step + 1)


def roll_back(policy: TrafficPolicy, reason: str, now_us: int, numbers: Mapping[str, Any]) -> TrafficChange:
    """Return the change that ends a rollout and sends all traffic back to the champion."""
    policy = _next_policy(policy, now_us, reason, numbers)
    return TrafficChange(kind="back", policy=_end_rollout(policy, policy.champion))


def follow_alias(policy: TrafficPolicy, holder: str, moves: int, reason: str, now_us: int) -> TrafficChange | None:
    """Return the change that follows an alias moved by a person since the policy was written, otherwise None."""
    # The rollout moves the alias too, after it has written its policy. Only a later move is that of a person.
    if policy.champion == holder or policy.moves >= moves:
        return None
    text = f"the alias champion moved to version {holder}: {reason}"
    next_policy = _next_policy(replace(policy, moves=moves), now_us, text, {})
    return TrafficChange(kind="follow", policy=_end_rollout(next_policy, holder))


def return_to_version(
    policy: TrafficPolicy | None, *, champion: str, version: str, moves: int, reason: str, now_us: int
) -> TrafficChange:
    """Return the change that sends all traffic back to an earlier champion."""
    current = policy or TrafficPolicy(number=0, phase="champion", champion=champion)
    next_policy = _next_policy(replace(current, moves=moves), now_us, reason, {})
    return TrafficChange(kind="back", policy=_end_rollout(next_policy, version))


def encode_evidence(evidence: Evidence, verdicts: list[Verdict]) -> dict[str, Any]:
    """Return the evidence of a change, as plain JSON values."""
    return {
        "requests": {"champion": evidence.champion.requests, "challenger": evidence.challenger.requests},
        "guardrails": [verdict.as_dict() for verdict in verdicts],
        "differences": _differences(evidence.challenger.differences),
    }


def _differences(differences: ScoreDifferences) -> dict[str, Any] | None:
    """Return the differences of a shadow's scores from the served scores, on the same vectors."""
    if not differences.rows:
        return None
    correlation = differences.rank_correlation
    return {
        "rows": differences.rows,
        "mean": differences.mean,
        "rank_correlation": None if isnan(correlation) else correlation,
        "quantiles": dict(zip(map(str, _QUANTILES), differences.quantiles(_QUANTILES).tolist(), strict=True)),
    }


def _end_shadow(policy: TrafficPolicy, rollout: Rollout) -> TrafficChange:
    policy = replace(policy, shadows=())
    if rollout.kind == "ab":
        text = f"{policy.reason}; an A/B test with {rollout.share:.0%} of the entities"
        return TrafficChange(kind="forward", policy=replace(policy, phase="ab", share=rollout.share, reason=text))
    return _advance_canary(policy, rollout, 0)


def _advance_canary(policy: TrafficPolicy, rollout: Rollout, step: int) -> TrafficChange:
    steps = rollout.steps if rollout.kind == "canary" else ()
    if step >= len(steps):
        return TrafficChange(kind="won", policy=_end_rollout(policy, _challenger_of(policy)))
    text = f"{policy.reason}; {steps[step]:.4g} of the entities"
    return TrafficChange(
        kind="forward", policy=replace(policy, phase="canary", share=steps[step], step=step, reason=text)
    )


def _analyse_ab_test(
    policy: TrafficPolicy,
    rollout: Rollout,
    evidence: Evidence,
    elapsed: timedelta,
    now_us: int,
    numbers: Mapping[str, Any],
) -> TrafficChange | None:
    analysis = analyse(evidence.losses, rollout.alpha) if evidence.losses else None
    numbers = {**numbers, "test": analysis.as_dict() if analysis else None}
    if analysis is not None and analysis.winner == "challenger":
        reason = f"the challenger's loss is lower: {_describe_analysis(analysis)}"
        policy = _next_policy(policy, now_us, reason, numbers)
        return TrafficChange(kind="won", policy=_end_rollout(policy, _challenger_of(policy)))
    if analysis is not None and analysis.winner == "champion":
        return roll_back(policy, f"the champion's loss is lower: {_describe_analysis(analysis)}", now_us, numbers)
    # Without a decision the champion stays: the challenger has to prove that it is better.
    if elapsed >= rollout.longest:
        length = length_text(rollout.longest // _MICROSECOND)
        return roll_back(policy, f"the A/B test has not decided within {length}", now_us, numbers)
    return None


def _describe_analysis(analysis: InterimAnalysis) -> str:
    return f"difference {analysis.difference:.4g}, between {analysis.low:.4g} and {analysis.high:.4g} at any look"


def phase_duration(policy: TrafficPolicy, rollout: Rollout) -> timedelta:
    """Return the shortest duration of the phase; for an A/B test the longest."""
    return {"shadow": rollout.shadow, "ab": rollout.longest}.get(policy.phase, rollout.step)


def _next_policy(policy: TrafficPolicy, now_us: int, reason: str, numbers: Mapping[str, Any]) -> TrafficPolicy:
    return replace(policy, number=policy.number + 1, since_us=now_us, reason=reason, evidence=numbers or None)


def _end_rollout(policy: TrafficPolicy, champion: str) -> TrafficPolicy:
    """Return a policy under which one version gets all traffic."""
    # A new policy, not a changed one: share, salt and shadows of the rollout must end with it.
    return TrafficPolicy(
        number=policy.number,
        phase="champion",
        champion=champion,
        since_us=policy.since_us,
        moves=policy.moves,
        reason=policy.reason,
        evidence=policy.evidence,
    )


def _challenger_of(policy: TrafficPolicy) -> str:
    return policy.challenger or policy.champion
