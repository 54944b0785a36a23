"""Rollouts of new versions: begun, advanced, rolled back; each change is planned, then applied.

The traffic policy decides: it is written first, by compare-and-set, and the alias ``champion`` follows it. After a kill
between the two writes, the next step continues: the policy has the number of alias changes at its time, so an alias
that lags is moved, and a later change by a person is followed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from skewless.contract.errors import ConflictError, DefinitionError, PackageError, StalePlanError, StoreError
from skewless.contract.lifecycle import Rollout
from skewless.contract.names import check_known
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.models.packages.package import open_package, read_pinned_plan
from skewless.infra.models.packages.store import AliasMove
from skewless.infra.platform.alerts.alerts import Alert, Alerts
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.operations.audited import audited
from skewless.workspace import Workspace

if TYPE_CHECKING:
    from skewless.training.rollout.guardrails import Verdict
    from skewless.training.rollout.plan import TrafficChange

CHAMPION = "champion"
ALERT = "rollout"
_log = EventLogger()


@dataclass(frozen=True, kw_only=True)
class RolloutOutcome:
    """The result of a call: the change, and the traffic after it.

    Args:
        policy: current traffic policy; None: the model never had one.
        change: kind of the change; None: nothing changed.
        verdicts: of the guardrails; empty without a rollout.
    """

    model: str
    policy: TrafficPolicy | None
    change: str | None = None
    verdicts: tuple[Verdict, ...] = ()

    @property
    def under_way(self) -> bool:
        """Whether a rollout is in progress."""
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


def _tell_outcome(outcome: RolloutOutcome) -> dict[str, Any]:
    return {"model": outcome.model, "change": outcome.change}


@audited(changing=("begin", "step"), tell=lambda outcomes: {"outcomes": [*map(_tell_outcome, outcomes)]})
def rollout(
    project: Workspace, model: str | None = None, *, begin: str | None = None, step: bool = False, dry_run: bool = False
) -> list[RolloutOutcome]:
    """Return the traffic of one model or of all; begin a rollout, or advance all rollouts or roll them back.

    Args:
        begin: version whose rollout begins.
        dry_run: with ``begin``: change nothing, and return the policy that would apply.

    Raises:
        DefinitionError: a step has no dry run.
        RequestError: the plan has no such model.
        PackageError, StalePlanError, ConflictError: as ``begin_rollout``.
    """
    names = [project.applied.model(model).name] if model is not None else [spec.name for spec in project.models]
    if begin is not None:
        return [begin_rollout(project, project.applied.model_or_only(model).name, begin, dry_run=dry_run)]
    if dry_run and step:
        fix = "remove --step: without it, the current verdicts are shown"
        raise DefinitionError("option --dry-run", "cannot be used with --step", fix=fix)
    return [step_rollout(project, name) if step else show_rollout(project, name) for name in names]


def begin_rollout(project: Workspace, model: str, version: str, *, dry_run: bool = False) -> RolloutOutcome:
    """Begin the rollout of a version, as its model declares; nothing changes if that rollout is in progress.

    With a dry run, the result has the policy that would apply.

    Raises:
        PackageError: the model has no such version, or it cannot be loaded here.
        StalePlanError: the version was trained under another plan.
        ConflictError: another rollout is in progress, or another process changed the traffic meanwhile.
    """
    if dry_run:
        planned = plan_begin(project, model, version)
        return show_rollout(project, model) if planned is None else _outcome(model, planned)
    policy = _settle(project, model)
    _prepare(project, model, version)
    # Planned after the preparation, which can take minutes: the traffic may have changed meanwhile.
    change = plan_begin(project, model, version)
    if change is None:
        return RolloutOutcome(model=model, policy=policy)
    _resolve_alert(project, model)
    return RolloutOutcome(model=model, policy=_apply(project, model, change), change=change.kind)


def plan_begin(project: Workspace, model: str, version: str) -> TrafficChange | None:
    """Return the change that ``begin_rollout`` would make; raises as it does."""
    from skewless.operations.models.rollout_evidence import check_policy, check_version
    from skewless.training.rollout import plan

    check_version(project, model, version)
    traffic, aliases = project.store.traffic, project.store.aliases
    last = next(aliases.read_latest_first(model, CHAMPION), None)
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
    """Finish an interrupted change, judge the guardrails, and advance the rollout or roll it back; always safe to call.

    Raises:
        ConflictError: another process changed the traffic meanwhile; the next call sees it.
    """
    from skewless.operations.models.rollout_evidence import add_labels, problem_of, read_evidence, save_counts
    from skewless.training.rollout import plan
    from skewless.training.rollout.guardrails import judge

    policy = _settle(project, model)
    if policy is None or policy.challenger is None:
        return RolloutOutcome(model=model, policy=policy)
    rollout, now_us = rollout_of(project, model), project.clock.now_us()
    evidence = read_evidence(project, model, policy)
    change = plan.next_change(policy, rollout, evidence, now_us)
    if change is None or change.kind != "back":
        # Labels take longer to read than the counts of servers: a breach by the counts does not wait for labels.
        evidence = add_labels(project, model, policy, evidence)
        change = plan.next_change(policy, rollout, evidence, now_us)
    if change is not None and change.kind in {"forward", "won"}:
        # Before the challenger gets more traffic, it is loaded, and its views are checked, once more.
        evidence = replace(evidence, problem=problem_of(project, model, policy))
        change = plan.next_change(policy, rollout, evidence, now_us)
    verdicts = tuple(judge(rollout.guardrails, evidence))
    if change is None:
        save_counts(project, model, policy, evidence, rollout.guardrails.least_requests)
        return RolloutOutcome(model=model, policy=policy, verdicts=verdicts)
    policy = _roll_back(project, model, change) if change.kind == "back" else _apply(project, model, change)
    return RolloutOutcome(model=model, policy=policy, change=change.kind, verdicts=verdicts)


@audited(tell=lambda outcome: {"outcomes": [_tell_outcome(outcome)]})
def rollback(
    project: Workspace, model: str, *, reason: str = "rolled back by hand", dry_run: bool = False
) -> RolloutOutcome:
    """Send all traffic back to the champion; without a rollout, to the champion before the current one.

    Raises:
        PackageError: there is no earlier champion, or its package was altered.
        StalePlanError: the earlier champion cannot be served, because the online store lacks one of its views.
        ConflictError: a rollback for this reason has just ended the rollout, or another process changed the traffic.
    """
    if dry_run:
        return _outcome(model, plan_rollback(project, model, reason))
    holder, settled = project.store.aliases.get(model, CHAMPION), _settle(project, model)
    if settled is not None and settled.champion != holder and settled.reason == reason:
        return RolloutOutcome(model=model, policy=settled, change="back")  # it was interrupted; it is not a second one
    change = plan_rollback(project, model, reason)
    _prepare(project, model, change.policy.champion)
    return RolloutOutcome(model=model, policy=_apply(project, model, change), change=change.kind)


def _outcome(model: str, change: TrafficChange) -> RolloutOutcome:
    return RolloutOutcome(model=model, policy=change.policy, change=change.kind)


def _prepare(project: Workspace, model: str, version: str) -> None:
    """Prepare the views of a version in the online store, before it receives traffic."""
    lacking = project.readiness.prepare(read_pinned_plan(project.store, model, version))
    if lacking:
        raise StalePlanError(
            f"model {model!r} {version}",
            f"cannot be served: {'; '.join(lacking)}",
            fix="fix this, then run it again; nothing was changed",
        )


def plan_rollback(project: Workspace, model: str, reason: str) -> TrafficChange:
    """Return the change that ``rollback`` would make; raises as it does."""
    from skewless.training.rollout import plan

    check_known("model", model, project.packages.list_models())
    traffic, aliases = project.store.traffic, project.store.aliases
    before, policy = [None, None, *traffic.history(model, most=2)][-2:]
    now_us = project.clock.now_us()
    if policy is not None and policy.challenger is not None:
        return plan.roll_back(policy, reason, now_us, {})
    moves = aliases.history(model, CHAMPION)
    if policy and before and before.challenger and (policy.champion, policy.reason) == (moves[-1].to, reason):
        # The end of a rollout is one write: a caller that was killed after it cannot know that it was made.
        fix = "give another --reason to go back to the champion before, too"
        raise ConflictError(f"rollback of {model!r}", "has ended the rollout, for this reason", value=reason, fix=fix)
    earlier = aliases.previous(model, CHAMPION)
    if earlier is None:
        fix = "train another version, or name one with `skewless rollout --begin`"
        raise PackageError(f"model {model!r}", "has no earlier champion", fix=fix)
    open_package(project.store, model, earlier)
    return plan.return_to_version(
        policy, champion=moves[-1].to, version=earlier, moves=moves[-1].number, reason=reason, now_us=now_us
    )


def show_rollout(project: Workspace, model: str, *, counts_only: bool = False) -> RolloutOutcome:
    """Return a model's traffic and the current verdicts of its guardrails; changes nothing.

    Args:
        counts_only: judge only by the servers' counts, which are read quickly; what needs labels is not judged.
    """
    from skewless.operations.models.rollout_evidence import add_labels, read_counted, read_evidence
    from skewless.training.rollout.guardrails import judge

    policy = project.store.traffic.get(model)
    if policy is None or policy.challenger is None:
        return RolloutOutcome(model=model, policy=policy)
    if counts_only:
        evidence = read_counted(project, model, policy)
    else:
        evidence = add_labels(project, model, policy, read_evidence(project, model, policy))
    verdicts = judge(rollout_of(project, model).guardrails, evidence)
    return RolloutOutcome(model=model, policy=policy, verdicts=tuple(verdicts))


def needs_step(project: Workspace, model: str) -> bool:
    """Whether ``step_rollout`` has work: a rollout is in progress, or the alias and the policy differ."""
    traffic, aliases = project.store.traffic, project.store.aliases
    policy = traffic.get(model)
    return policy is not None and (policy.challenger is not None or aliases.get(model, CHAMPION) != policy.champion)


def rollout_of(project: Workspace, model: str) -> Rollout:
    """Return the rollout of a model: as declared, or at once."""
    return project.applied.model(model).rollout or Rollout(kind="at_once", step=timedelta(0))


def _settle(project: Workspace, model: str) -> TrafficPolicy | None:
    """Return the current policy, after the alias and the policy agree."""
    from skewless.training.rollout import plan

    traffic, aliases = project.store.traffic, project.store.aliases
    policy, last = traffic.get(model), next(aliases.read_latest_first(model, CHAMPION), None)
    if policy is None or (last is not None and last.to == policy.champion):
        return policy
    change = plan.follow_alias(policy, last.to, last.number, last.reason, project.clock.now_us()) if last else None
    if change is not None:
        # This policy follows the alias, so it never moves it: a person may have moved it again by now.
        return _write_policy(project, model, change)
    _follow_policy(project, model, policy, last)
    return policy


def _apply(project: Workspace, model: str, change: TrafficChange) -> TrafficPolicy:
    """Write a policy, then move the alias to its champion, unless another process has moved it meanwhile."""
    policy = _write_policy(project, model, change)
    last = next(project.store.aliases.read_latest_first(model, CHAMPION), None)
    if last is None or last.to != policy.champion:
        if last is not None and last.number > policy.moves:
            raise ConflictError(
                f"alias {CHAMPION!r} of model {model!r}",
                "was moved by another process meanwhile; traffic follows it",
                value=last.to,
                fix="run `skewless versions`, then decide again",
            )
        _follow_policy(project, model, policy, last)
    return policy


def _write_policy(project: Workspace, model: str, change: TrafficChange) -> TrafficPolicy:
    policy = project.store.traffic.replace(model, change.policy, expect=change.policy.number - 1 or None)
    _log.info(
        "rollout_changed",
        model=model,
        change=change.kind,
        policy=policy.number,
        phase=policy.phase,
        reason=policy.reason,
    )
    return policy


def _follow_policy(project: Workspace, model: str, policy: TrafficPolicy, last: AliasMove | None) -> None:
    project.store.aliases.move(
        model,
        CHAMPION,
        expect=last.to if last else None,
        to=policy.champion,
        reason=policy.reason,
        now_us=project.clock.now_us(),
    )


def _roll_back(project: Workspace, model: str, change: TrafficChange) -> TrafficPolicy:
    """Roll a rollout back and send an alert: the alert first, so that a kill cannot lose it; its failure is logged."""
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
            _log.warning("alert_not_sent", model=model, error=str(error))
        return _apply(project, model, change)


def _resolve_alert(project: Workspace, model: str) -> None:
    """Resolve the alert of the rollout before this one."""
    with Alerts(project.state, project.settings.alert_webhook) as alerts:
        try:
            alerts.resolve(ALERT, model, project.clock.now_us())
        except StoreError as error:
            _log.warning("alert_not_resolved", model=model, error=str(error))
