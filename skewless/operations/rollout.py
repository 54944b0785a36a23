"""Rollouts of new versions: begun, taken a step further, rolled back; each change is planned, then applied.

The traffic policy is what decides: it is written first, by compare-and-set, and the alias ``champion`` follows it. A
kill between the two is seen by the next step: the policy remembers how often the alias had moved when it was written,
so an alias that lags is moved, and one that a person has moved since is followed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from skewless.contract.errors import ConflictError, DefinitionError, PackageError, StalePlanError, StoreError
from skewless.contract.lifecycle import Rollout
from skewless.contract.names import check_known
from skewless.contract.traffic import TrafficPolicy

if TYPE_CHECKING:
    from skewless.infra.packages.aliases import Aliases, AliasMove
    from skewless.infra.rollout.traffic import Traffic
    from skewless.training.rollout.guardrails import Verdict
    from skewless.training.rollout.plan import TrafficChange
    from skewless.workspace import Workspace

CHAMPION = "champion"
ALERT = "rollout"
_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class RolloutOutcome:
    """What one call did, and where a model's traffic stands since.

    Args:
        policy: in force; None: the model never had one.
        change: kind of the change that was made; None: nothing was to be done.
        verdicts: of the guardrails, as they were judged; none outside a rollout.
    """

    model: str
    policy: TrafficPolicy | None
    change: str | None = None
    verdicts: tuple[Verdict, ...] = ()

    @property
    def under_way(self) -> bool:
        """Say whether a version is taking over."""
        return self.policy is not None and self.policy.challenger is not None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "model": self.model,
            "under_way": self.under_way,
            "change": self.change,
            "policy": self.policy.as_dict() if self.policy else None,
            "guardrails": [verdict.as_dict() for verdict in self.verdicts],
        }


def rollout(
    project: Workspace, model: str | None = None, *, begin: str | None = None, step: bool = False, dry_run: bool = False
) -> list[RolloutOutcome]:
    """Return where the traffic of a model or of all stands; begin a rollout, or take all a step on or back.

    Args:
        begin: the version that is to take over.
        dry_run: with ``begin``: change nothing, and return the policy that would be in force.

    Raises:
        DefinitionError: a dry run of a step was asked.
        RequestError: the plan has no such model.
        PackageError, StalePlanError, ConflictError: as ``begin_rollout``.
    """
    names = [project.applied.model(model).name] if model is not None else [spec.name for spec in project.models]
    if begin is not None:
        return [begin_rollout(project, project.applied.model_or_only(model).name, begin, dry_run=dry_run)]
    if dry_run and step:
        fix = "leave --step out: what is shown is what it would judge"
        raise DefinitionError("option --dry-run", "does not go with --step", fix=fix)
    return [step_rollout(project, name) if step else status(project, name) for name in names]


def begin_rollout(project: Workspace, model: str, version: str, *, dry_run: bool = False) -> RolloutOutcome:
    """Let a version start to take over, as its model declares; nothing changes where it is doing so already.

    With a dry run, the policy of the answer is the one that would be in force.

    Raises:
        PackageError: there is no such version, or it cannot be loaded here.
        StalePlanError: it was trained under another plan.
        ConflictError: another version is taking over, or somebody changed the traffic meanwhile.
    """
    if dry_run:
        planned = plan_begin(project, model, version)
        return status(project, model) if planned is None else _foreseen(model, planned)
    policy = _settled(project, model)
    _prepare(project, model, version)
    change = plan_begin(project, model, version)
    if change is None:
        return RolloutOutcome(model=model, policy=policy)
    _resolve(project, model)
    return RolloutOutcome(model=model, policy=_apply(project, model, change), change=change.kind)


def plan_begin(project: Workspace, model: str, version: str) -> TrafficChange | None:
    """Return what ``begin`` would change; raises as it does."""
    from skewless.operations.rollout_evidence import check_policy, check_version
    from skewless.training.rollout import plan

    check_version(project, model, version)
    traffic, aliases = _books(project)
    last = next(aliases.backwards(model, CHAMPION), None)
    change = plan.start_rollout(
        traffic.get(model),
        rollout_of(project, model),
        champion=last.to if last else None,
        challenger=version,
        moves=last.number if last else 0,
        now_us=project.clock.now_us(),
    )
    if change is not None:
        check_policy(project, model, change.policy)
    return change


def step_rollout(project: Workspace, model: str) -> RolloutOutcome:
    """Finish what was begun, judge the guardrails, and take the rollout a step on or back; safe to call at any time.

    Raises:
        ConflictError: somebody changed the traffic meanwhile; the next call sees it.
    """
    from skewless.operations.rollout_evidence import gather, problem_of, remember, with_labels
    from skewless.training.rollout import plan
    from skewless.training.rollout.guardrails import judge

    policy = _settled(project, model)
    if policy is None or policy.challenger is None:
        return RolloutOutcome(model=model, policy=policy)
    rollout, now_us = rollout_of(project, model), project.clock.now_us()
    evidence = gather(project, model, policy)
    change = plan.next_change(policy, rollout, evidence, now_us)
    if change is None or change.kind != "back":
        # Labels take longer to look up than what servers count: a breach there does not wait for them.
        evidence = with_labels(project, model, policy, evidence)
        change = plan.next_change(policy, rollout, evidence, now_us)
    if change is not None and change.kind in {"forward", "won"}:
        evidence = replace(evidence, problem=problem_of(project, model, policy))
        change = plan.next_change(policy, rollout, evidence, now_us)
    verdicts = tuple(judge(rollout.guardrails, evidence))
    if change is None:
        remember(project, model, policy, evidence, rollout.guardrails.least_requests)
        return RolloutOutcome(model=model, policy=policy, verdicts=verdicts)
    placed = _told(project, model, change) if change.kind == "back" else _apply(project, model, change)
    return RolloutOutcome(model=model, policy=placed, change=change.kind, verdicts=verdicts)


def rollback(project: Workspace, model: str, reason: str, *, dry_run: bool = False) -> RolloutOutcome:
    """Give the champion everything again; where no version is taking over, the champion before this one.

    Raises:
        PackageError: there was no champion before this one, or its package is altered.
        StalePlanError: it cannot be served: something that it reads cannot be brought to the online store.
        ConflictError: somebody changed the traffic meanwhile.
    """
    if dry_run:
        return _foreseen(model, plan_rollback(project, model, reason))
    _settled(project, model)
    change = plan_rollback(project, model, reason)
    _prepare(project, model, change.policy.champion)
    return RolloutOutcome(model=model, policy=_apply(project, model, change), change=change.kind)


def _foreseen(model: str, change: TrafficChange) -> RolloutOutcome:
    return RolloutOutcome(model=model, policy=change.policy, change=change.kind)


def _prepare(project: Workspace, model: str, version: str) -> None:
    """See that a version can be served before it is given the traffic."""
    from skewless.infra.packages.package import read_pinned_plan

    lacking = project.readiness.prepare(read_pinned_plan(project.store, model, version))
    if lacking:
        raise StalePlanError(
            f"model {model!r} {version}",
            f"cannot be served: {'; '.join(lacking)}",
            fix="mend that and run it again; nothing was moved",
        )


def plan_rollback(project: Workspace, model: str, reason: str) -> TrafficChange:
    """Return what ``rollback`` would change; raises as it does."""
    from skewless.infra.packages.package import open_package
    from skewless.infra.storage.names import list_models
    from skewless.training.rollout import plan

    check_known("model", model, list_models(project.packages))
    traffic, aliases = _books(project)
    policy, now_us = traffic.get(model), project.clock.now_us()
    if policy is not None and policy.challenger is not None:
        return plan.roll_back(policy, reason, now_us, {})
    moves = aliases.history(model, CHAMPION)
    earlier = aliases.previous(model, CHAMPION)
    if earlier is None:
        fix = "train another version, or name one with `skewless rollout --begin`"
        raise PackageError(f"model {model!r}", "has no champion before this one", fix=fix)
    open_package(project.store, model, earlier)
    return plan.return_to_version(
        policy, champion=moves[-1].to, version=earlier, moves=moves[-1].number, reason=reason, now_us=now_us
    )


def status(project: Workspace, model: str) -> RolloutOutcome:
    """Return where a model's traffic stands and what the guardrails say now; changes nothing."""
    from skewless.operations.rollout_evidence import gather, with_labels
    from skewless.training.rollout.guardrails import judge

    policy = _books(project)[0].get(model)
    if policy is None or policy.challenger is None:
        return RolloutOutcome(model=model, policy=policy)
    evidence = with_labels(project, model, policy, gather(project, model, policy))
    verdicts = judge(rollout_of(project, model).guardrails, evidence)
    return RolloutOutcome(model=model, policy=policy, verdicts=tuple(verdicts))


def wants_step(project: Workspace, model: str) -> bool:
    """Say whether ``step`` may have something to do: a version is taking over, or the alias and the policy differ."""
    traffic, aliases = _books(project)
    policy = traffic.get(model)
    return policy is not None and (policy.challenger is not None or aliases.get(model, CHAMPION) != policy.champion)


def rollout_of(project: Workspace, model: str) -> Rollout:
    """Return how versions of a model take over: as declared, or at once."""
    return project.applied.model(model).rollout or Rollout(kind="at_once", step=timedelta(0))


def _settled(project: Workspace, model: str) -> TrafficPolicy | None:
    """Return the policy in force once the alias and it agree."""
    from skewless.training.rollout import plan

    traffic, aliases = _books(project)
    policy, last = traffic.get(model), next(aliases.backwards(model, CHAMPION), None)
    if policy is None or (last is not None and last.to == policy.champion):
        return policy
    change = plan.follow_alias(policy, last.to, last.number, last.reason, project.clock.now_us()) if last else None
    if change is not None:
        # It follows the alias, so it never moves it: somebody may have moved it on by now.
        return _place(project, model, change)
    _follow_policy(project, model, policy, last)
    return policy


def _apply(project: Workspace, model: str, change: TrafficChange) -> TrafficPolicy:
    """Put a policy in force, then let the alias follow it, unless somebody has moved it meanwhile."""
    placed = _place(project, model, change)
    last = next(_books(project)[1].backwards(model, CHAMPION), None)
    if last is None or last.to != placed.champion:
        if last is not None and last.number > placed.moves:
            raise ConflictError(
                f"alias {CHAMPION!r} of model {model!r}",
                "was moved by somebody else meanwhile, who is followed",
                value=last.to,
                fix="look at `skewless versions` and decide again",
            )
        _follow_policy(project, model, placed, last)
    return placed


def _place(project: Workspace, model: str, change: TrafficChange) -> TrafficPolicy:
    placed = _books(project)[0].replace(model, change.policy, expect=change.policy.number - 1 or None)
    _log.info(
        "rollout", model=model, change=change.kind, policy=placed.number, phase=placed.phase, reason=placed.reason
    )
    return placed


def _follow_policy(project: Workspace, model: str, policy: TrafficPolicy, last: AliasMove | None) -> None:
    _books(project)[1].move(
        model,
        CHAMPION,
        expect=last.to if last else None,
        to=policy.champion,
        reason=policy.reason,
        now_us=project.clock.now_us(),
    )


def _told(project: Workspace, model: str, change: TrafficChange) -> TrafficPolicy:
    """Apply what ends a rollout, and alert: first, so that a kill cannot lose it, and without hindering the end."""
    from skewless.infra.alerts.alerts import Alert, Alerts

    policy = change.policy
    alert = Alert(
        name=ALERT,
        severity="critical",
        subject=model,
        message=f"rolled back to version {policy.champion}: {policy.reason}",
        at_us=policy.since_us,
        evidence=policy.evidence or {},
    )
    with Alerts(project.state, project.settings.alert_webhook) as alerts:
        try:
            alerts.send(alert)
        except StoreError as error:
            _log.warning("alert_lost", model=model, error=str(error))
        return _apply(project, model, change)


def _resolve(project: Workspace, model: str) -> None:
    """Close the alert of the rollout before this one."""
    from skewless.infra.alerts.alerts import Alerts

    with Alerts(project.state, project.settings.alert_webhook) as alerts:
        try:
            alerts.resolve(ALERT, model, project.clock.now_us())
        except StoreError as error:
            _log.warning("alert_not_resolved", model=model, error=str(error))


def _books(project: Workspace) -> tuple[Traffic, Aliases]:
    from skewless.infra.packages.aliases import Aliases
    from skewless.infra.rollout.traffic import Traffic

    return Traffic(project.packages), Aliases(project.packages)
