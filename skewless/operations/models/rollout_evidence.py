"""The evidence of a rollout: the servers' counts, the outcomes and the packages."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from skewless.contract.errors import PackageError, StalePlanError
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.models.packages.package import read_pinned_plan
from skewless.infra.models.packages.served_model import load_model
from skewless.infra.models.packages.store import versions_of
from skewless.infra.models.rollout.counts import (
    PolicyCounts,
    RolloutCounts,
    read_counts,
    read_earlier_counts,
    write_earlier_counts,
)
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.routing import Routing
from skewless.training.rollout.evidence import Evidence, compare_labelled, counts_since
from skewless.workspace import Workspace


def read_evidence(project: Workspace, model: str, policy: TrafficPolicy) -> Evidence:
    """Return the evidence of both arms under the current policy; a challenger without requests is loaded as a test."""
    evidence = read_counted(project, model, policy)
    if evidence.challenger.requests:
        return evidence
    return replace(evidence, problem=problem_of(project, model, policy))


def read_counted(project: Workspace, model: str, policy: TrafficPolicy) -> Evidence:
    """Return the servers' counts of both arms under the current policy; reads neither labels nor packages."""

    def arms(counts: Mapping[str, RolloutCounts]) -> tuple[RolloutCounts, RolloutCounts]:
        return counts.get(policy.champion, RolloutCounts()), counts.get(
            policy.challenger or policy.champion, RolloutCounts()
        )

    champion, challenger = arms(read_counts(project.state, model, policy.number))
    older = arms(read_earlier_counts(project.state, "older", model, policy.number))
    return Evidence(
        champion=champion,
        challenger=challenger,
        recent_champion=counts_since(champion, older[0]),
        recent_challenger=counts_since(challenger, older[1]),
    )


def save_counts(project: Workspace, model: str, policy: TrafficPolicy, evidence: Evidence, least: int) -> None:
    """Store the counts, if the challenger has ``least`` more requests than at the last call.

    So the recent counts cover one to two times ``least`` requests.
    """
    challenger = policy.challenger or policy.champion
    newer = read_earlier_counts(project.state, "newer", model, policy.number)
    if evidence.challenger.requests - newer.get(challenger, RolloutCounts()).requests < least:
        return
    now = {policy.champion: evidence.champion, challenger: evidence.challenger}
    with project.state.database.transaction():
        write_earlier_counts(project.state, "older", model, PolicyCounts(policy.number, newer))
        write_earlier_counts(project.state, "newer", model, PolicyCounts(policy.number, now))


def add_labels(project: Workspace, model: str, policy: TrafficPolicy, evidence: Evidence) -> Evidence:
    """Return evidence with the labels of all predictions since the rollout began, because labels come late."""
    from skewless.operations.models.quality import labelled_log

    now_us = project.clock.now_us()
    policies = [item for item in project.store.traffic.history(model) if item.salt == policy.salt]
    since_us = min(item.since_us for item in policies)
    if since_us > now_us:
        return evidence
    rows = labelled_log(project, model).read(since_us=since_us, until_us=now_us + 1, known_by_us=now_us)
    outcomes = compare_labelled(rows, project.applied.model(model), policy, {item.number for item in policies})
    return replace(evidence, quality=outcomes.quality, business=outcomes.business, losses=outcomes.losses)


def problem_of(project: Workspace, model: str, policy: TrafficPolicy) -> str:
    """Return why a policy's versions cannot be served here; empty: they can."""
    try:
        pinned = read_pinned_plan(project.store, model, policy.challenger or policy.champion)
        lacking = project.readiness.find_missing(pinned, behind=False)
        if lacking:
            return "; ".join(lacking)
        check_policy(project, model, policy)
    except (PackageError, StalePlanError) as error:
        return f"{error.thing} {error.problem}"
    return ""


def check_policy(project: Workspace, model: str, policy: TrafficPolicy) -> None:
    """Load the new versions of a policy as a server does, compare them with the champion, and unload them.

    Raises:
        PackageError: a version does not exist or was altered, its runtime differs from the library that trained it, or
            its inputs or outputs differ from the champion's.
    """
    with ExitStack() as stack:
        new = [version for version in versions_of(policy) if version != policy.champion]
        models = {version: stack.enter_context(load_model(project.store, model, version)) for version in new}
        try:
            models[policy.champion] = stack.enter_context(load_model(project.store, model, policy.champion))
        except (PackageError, StalePlanError):
            return  # servers still have the loaded champion; a new version is the remedy
        Routing(policy, models, Metrics())


def check_version(project: Workspace, model: str, version: str) -> None:
    """Load a version as a server does, and unload it; raises as ``check_policy``."""
    with load_model(project.store, model, version):
        pass
