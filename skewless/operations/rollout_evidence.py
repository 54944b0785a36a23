"""What a rollout is decided on, gathered from the servers' counts, the outcomes and the packages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.contract.errors import PackageError, StalePlanError

if TYPE_CHECKING:
    from skewless.contract.traffic import TrafficPolicy
    from skewless.infra.packages.served_model import ServedModel
    from skewless.training.rollout.evidence import Evidence
    from skewless.workspace import Workspace


def gather(project: Workspace, model: str, policy: TrafficPolicy) -> Evidence:
    """Return what both arms have shown under the policy in force; a version that was not asked yet is loaded once."""
    from skewless.infra.rollout.counts import RolloutCounts, read_counts
    from skewless.training.rollout.evidence import Evidence, counts_since

    def arms(state: Path) -> tuple[RolloutCounts, RolloutCounts]:
        found = read_counts(state, model, policy.number)
        return found.get(policy.champion, RolloutCounts()), found.get(
            policy.challenger or policy.champion, RolloutCounts()
        )

    (champion, challenger), before = arms(project.state), arms(_looks(project) / "older")
    evidence = Evidence(
        champion=champion,
        challenger=challenger,
        recent_champion=counts_since(champion, before[0]),
        recent_challenger=counts_since(challenger, before[1]),
    )
    if challenger.requests:
        return evidence
    return replace(evidence, problem=problem_of(project, model, policy))


def remember(project: Workspace, model: str, policy: TrafficPolicy, evidence: Evidence, least: int) -> None:
    """Keep what was counted until now, once enough has come since it was kept last: so "lately" is one to two of that.

    It is not waited for the disk: without it, everything counts as recent.
    """
    from skewless.infra.rollout.counts import PolicyCounts, RolloutCounts, counts_folder, read_counts, write_counts

    challenger = policy.challenger or policy.champion
    newer = read_counts(_looks(project) / "newer", model, policy.number)
    if evidence.challenger.requests - newer.get(challenger, RolloutCounts()).requests < least:
        return
    now = {policy.champion: evidence.champion, challenger: evidence.challenger}
    for name, versions in (("older", newer), ("newer", now)):
        path = counts_folder(_looks(project) / name) / f"{model}.json"
        write_counts(path, {model: PolicyCounts(policy.number, versions)})


def _looks(project: Workspace) -> Path:
    return project.state / "rollouts"


def with_labels(project: Workspace, model: str, policy: TrafficPolicy, evidence: Evidence) -> Evidence:
    """Return evidence with what labels say: on all that was predicted since the rollout began, as they come late."""
    from skewless.infra.rollout.traffic import Traffic
    from skewless.operations.quality import labelled_log
    from skewless.training.rollout.labelled_evidence import compare_labelled

    now_us = project.clock.now_us()
    own = [one for one in Traffic(project.packages).history(model) if one.salt == policy.salt]
    since_us = min(one.since_us for one in own)
    if since_us > now_us:
        return evidence
    rows = labelled_log(project, model).read(since_us=since_us, until_us=now_us + 1, known_by_us=now_us)
    found = compare_labelled(rows, project.applied.model(model), policy, {one.number for one in own})
    return replace(evidence, quality=found.quality, business=found.business, losses=found.losses)


def problem_of(project: Workspace, model: str, policy: TrafficPolicy) -> str:
    """Return why a policy's versions cannot answer here; empty: they can."""
    from skewless.infra.packages.package import read_pinned_plan

    try:
        pinned = read_pinned_plan(project.store, model, policy.challenger or policy.champion)
        lacking = project.readiness.lacking(pinned, behind=False)
        if lacking:
            return "; ".join(lacking)
        check_policy(project, model, policy)
    except (PackageError, StalePlanError) as error:
        return f"{error.thing} {error.problem}"
    return ""


def check_policy(project: Workspace, model: str, policy: TrafficPolicy) -> None:
    """Load what is new in a policy as a server does, hold it against the champion, and let it go again.

    Raises:
        PackageError: a version does not exist, is altered, has a runtime that differs from the library that trained
            it, or takes other inputs or gives other outputs than the champion.
    """
    from skewless.infra.rollout.traffic import versions_of
    from skewless.serving.metrics.metrics import Metrics
    from skewless.serving.prediction.routing import Routing

    with ExitStack() as stack:
        new = [version for version in versions_of(policy) if version != policy.champion]
        models = {version: stack.enter_context(_opened(project, model, version)) for version in new}
        try:
            models[policy.champion] = stack.enter_context(_opened(project, model, policy.champion))
        except (PackageError, StalePlanError):
            return  # what servers hold of it is good; a new version is the remedy
        Routing(policy, models, Metrics())


def check_version(project: Workspace, model: str, version: str) -> None:
    """Load a version as a server does, and let it go again; raises as ``check_policy``."""
    with _opened(project, model, version):
        pass


@contextmanager
def _opened(project: Workspace, model: str, version: str) -> Iterator[ServedModel]:
    from skewless.infra.packages.served_model import load_model

    served = load_model(project.store, model, version)
    try:
        yield served
    finally:
        served.runtime.close()
