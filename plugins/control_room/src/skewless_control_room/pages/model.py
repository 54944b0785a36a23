"""A model: who answers, and how well?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skewless.contract.plain_record import PlainRecord
from skewless.contract.traffic import TrafficPolicy
from skewless.operations.models.rollout import show_rollout
from skewless.operations.models.versions import Version, read_versions
from skewless.project import Project
from skewless_control_room.model_history import ModelDecision, policy_text, read_decisions, role, traffic_share
from skewless_control_room.page import Page, Part, Query, Unknown, read_part
from skewless_control_room.pages.model_parts import (
    DriftPart,
    ImportancePart,
    QualityPart,
    TrafficPart,
    TrainingPart,
    read_drift_part,
    read_importance,
    read_quality_part,
    read_traffic,
    read_training,
)
from skewless_control_room.pages.models import CHAMPION, check_model
from skewless_control_room.stored_results import last_run

MOST_VERSIONS = 10
_DECISIONS, _MOST_DECISIONS = 15, 60
_JUDGED_BY_LABELS = {"quality", "business"}


@dataclass(frozen=True, kw_only=True)
class AliasHolder(PlainRecord):
    """An alias: who holds it, since when, and why."""

    alias: str
    version: str
    since_us: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class VersionRow(PlainRecord):
    """A version with its place in the traffic.

    Args:
        role: ``champion``, ``challenger``, ``shadow`` or empty.
        share: share of the entities that it answers, 0 to 1.
    """

    version: Version
    role: str
    share: float


@dataclass(frozen=True, kw_only=True)
class VersionsPart(PlainRecord):
    """The versions, the latest first.

    Args:
        champion: version that answers; None: there is none.
        total: number of versions.
        next_before: version before which the next page begins; empty: there is none.
        seen: what an action sends back, so that it is refused if the traffic has changed since.
    """

    metric: str
    champion: str | None
    aliases: Sequence[AliasHolder]
    rows: Sequence[VersionRow]
    total: int
    next_before: str
    seen: str


@dataclass(frozen=True, kw_only=True)
class RolloutPart(PlainRecord):
    """A rollout in progress.

    Args:
        text: its versions with their shares.
        verdicts: of the guardrails by the servers' counts, each as ``Verdict.as_dict``; verdicts about labels are of
            the last stored step.
        judged_us: end of that step, UTC microseconds; None: the scheduler has not stored a step of this policy.
        seen: see ``VersionsPart``.
    """

    policy: TrafficPolicy
    text: str
    verdicts: Sequence[Mapping[str, Any]]
    judged_us: int | None
    seen: str


@dataclass(frozen=True, kw_only=True)
class DecisionsPart(PlainRecord):
    """Decisions, the latest first; ``more`` leads to older ones, 0: there are none, or the page shows no older ones."""

    rows: Sequence[ModelDecision]
    more: int


@dataclass(frozen=True, kw_only=True)
class ModelPage(PlainRecord):
    """The answer about one model.

    Args:
        rollout: None: no rollout is in progress.
        training: of the champion; None: there is none.
        days: length of the time of the traffic plot.
    """

    model: str
    days: int
    versions: Part[VersionsPart]
    rollout: Part[RolloutPart | None]
    traffic: Part[TrafficPart]
    quality: Part[QualityPart]
    decisions: Part[DecisionsPart]
    drift: Part[DriftPart]
    importance: Part[ImportancePart]
    training: Part[TrainingPart | None]


def read_model(project: Project, query: Query) -> ModelPage:
    """Return the answer about one model; a part that cannot be read leaves the others.

    Raises:
        ScopeError: the viewer may not see the model.
        RequestError: there is no such model, or a value of the query is not allowed.
    """
    name, now_us = check_model(project, query), project.clock.now_us()
    days = int(query.choice("days", ("7", "1", "30")))
    before, decisions = query.text("before"), query.number("decisions", _DECISIONS, most=_MOST_DECISIONS)
    if before:
        query.number("before", 0, most=10**9)
    versions = read_part(lambda: _versions(project, name, before or None))
    champion = None if isinstance(versions, Unknown) else versions.value.champion
    return ModelPage(
        model=name,
        days=days,
        versions=versions,
        rollout=read_part(lambda: _rollout(project, name)),
        traffic=read_part(lambda: read_traffic(project, name, days, now_us)),
        quality=read_part(lambda: read_quality_part(project, name, champion, now_us)),
        decisions=read_part(lambda: _decisions(project, name, decisions)),
        drift=read_part(lambda: read_drift_part(project, name, champion, now_us)),
        importance=read_part(lambda: read_importance(project, name)),
        training=read_part(lambda: None if champion is None else read_training(project, name, champion)),
    )


def seen_state(project: Project, model: str) -> str:
    """Return what changes with each change of a model's traffic: numbers of its policy and of its alias move."""
    return f"{project.store.traffic.number(model) or 0}.{project.store.aliases.number(model, CHAMPION) or 0}"


def _versions(project: Project, name: str, before: str | None) -> VersionsPart:
    seen = seen_state(project, name)
    report, policy = read_versions(project, name, limit=MOST_VERSIONS, before=before), project.store.traffic.get(name)
    holder = project.store.aliases.get(name, CHAMPION)
    rows = [
        VersionRow(
            version=item,
            role=role(item.version, policy, holder),
            share=traffic_share(item.version, policy, holder),
        )
        for item in report.versions
    ]
    latest: dict[str, AliasHolder] = {}
    for move in report.moves:
        held = AliasHolder(alias=move["alias"], version=move["to"], since_us=move["at_us"], reason=move["reason"])
        latest.setdefault(held.alias, held)
    names = project.packages.list_versions(name)
    is_last = not rows or rows[-1].version.version == names[0]
    return VersionsPart(
        metric=report.metric,
        champion=policy.champion if policy else holder,
        aliases=[latest[alias] for alias in sorted(latest)],
        rows=rows,
        total=len(names),
        next_before="" if is_last else rows[-1].version.version,
        seen=seen,
    )


def _rollout(project: Project, name: str) -> RolloutPart | None:
    seen = seen_state(project, name)
    outcome = show_rollout(project, name, counts_only=True)
    if outcome.policy is None or not outcome.under_way:
        return None
    judged_us, stored = _stored_verdicts(project, name, outcome.policy.number)
    verdicts = [
        stored.get(verdict.guardrail, verdict.as_dict())
        if verdict.guardrail in _JUDGED_BY_LABELS
        else verdict.as_dict()
        for verdict in outcome.verdicts
    ]
    return RolloutPart(
        policy=outcome.policy, text=policy_text(outcome.policy), verdicts=verdicts, judged_us=judged_us, seen=seen
    )


def _stored_verdicts(project: Project, name: str, policy: int) -> tuple[int | None, dict[str, Mapping[str, Any]]]:
    """Return the end of the last stored step under a policy, and its verdicts by guardrail."""
    run = last_run(project, f"rollout {name}", "done")
    if run is None:
        return None, {}
    for outcome in run.outputs.get("models") or ():
        if outcome["model"] == name and (outcome["policy"] or {}).get("number") == policy:
            return run.ended_us, {item["guardrail"]: item for item in outcome["guardrails"]}
    return None, {}


def _decisions(project: Project, name: str, shown: int) -> DecisionsPart:
    rows = read_decisions(project, name, most=min(shown + 1, _MOST_DECISIONS))
    return DecisionsPart(rows=rows[:shown], more=_MOST_DECISIONS if len(rows) > shown else 0)


PAGE = Page(
    path="/models/{model}",
    question="Who answers for {model}, and how well?",
    template="model.html",
    read=read_model,
    live_s=4,
)
