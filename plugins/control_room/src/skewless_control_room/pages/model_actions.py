"""What a person can do with a model: measure it, approve, promote, roll out and roll back its versions."""

from __future__ import annotations

from skewless.contract.errors import ConflictError, RequestError
from skewless.contract.traffic import TrafficPolicy
from skewless.operations.models.rollout import RolloutOutcome
from skewless.operations.models.versions import Promotion
from skewless.project import Project
from skewless_control_room.actions import Action, Values
from skewless_control_room.model_history import policy_text
from skewless_control_room.pages.model import seen_state

_CHANGES = {
    "begin": "The rollout has begun",
    "forward": "The rollout has advanced",
    "won": "The challenger has become champion",
    "back": "The challenger was rolled back",
    "again": "The step has begun again, because the clock was set back",
    "follow": "The traffic follows the alias",
}

_MEASURED = ("quality", "drift")


def _check_seen(project: Project, values: Values) -> None:
    """Check that the traffic has not changed since the person saw it: a second click must not undo the first.

    Raises:
        ConflictError: it has changed.
    """
    if values["seen"] != seen_state(project, values["model"]):
        fix = "open the page of the model again and decide again"
        raise ConflictError(f"traffic of model {values['model']!r}", "has changed meanwhile", fix=fix)


def _policy(project: Project, values: Values) -> TrafficPolicy | None:
    return project.store.traffic.get(values["model"])


def _sentences(outcome: RolloutOutcome) -> list[str]:
    policy = outcome.policy
    if policy is None:
        return [f"Model {outcome.model} has no traffic policy."]
    lines = [f"Model {outcome.model}: {policy_text(policy)}.", f"Reason: {policy.reason}."]
    return lines + [f"{verdict.sentence()}." for verdict in outcome.verdicts]


def _promotion(planned: Promotion) -> list[str]:
    name, champion = f"{planned.model} {planned.version}", planned.champion or "none"
    if planned.decision is None:
        return [f"Nothing: {name} is the champion already."]
    lines = {
        "nothing": f"Nothing: {name} does not pass its gate, and champion {champion} stays.",
        "at_once": f"{name} becomes champion at once; the champion now is {champion}.",
        "rollout": f"{name} passes its gate and begins its rollout; champion {champion} stays until it has won.",
    }
    rows = f"Its gate, on the latest {planned.test_rows:,} test rows: {planned.decision.reason}."
    return [lines[planned.way], rows, *([] if planned.way == "nothing" else ["Servers follow within two seconds."])]


def _preview_promote(project: Project, values: Values) -> list[str]:
    _check_seen(project, values)
    planned, policy = project.promote(values["model"], values["version"], dry_run=True), _policy(project, values)
    if planned.way == "rollout" and policy is not None and policy.challenger == planned.version:
        return [f"Nothing but the decision of the gate is recorded: {planned.version} is in its rollout already."]
    return _promotion(planned)


def _promote(project: Project, values: Values) -> str:
    _check_seen(project, values)
    done = project.promote(values["model"], values["version"])
    if done.refusal is not None:
        raise done.refusal
    return f"{values['model']} {values['version']} " + (
        "has begun its rollout." if done.way == "rollout" else "is champion."
    )


def _preview_rollback(project: Project, values: Values) -> list[str]:
    _check_seen(project, values)
    return _sentences(project.rollback(values["model"], dry_run=True))


def _rollback(project: Project, values: Values) -> str:
    _check_seen(project, values)
    outcome = project.rollback(values["model"], reason=values["reason"])
    return f"Version {outcome.policy.champion if outcome.policy else '?'} receives all traffic again."


def _preview_begin(project: Project, values: Values) -> list[str]:
    _check_seen(project, values)
    outcomes = project.rollout(values["model"], begin=values["version"], dry_run=True)
    return [line for outcome in outcomes for line in _sentences(outcome)]


def _begin(project: Project, values: Values) -> str:
    _check_seen(project, values)
    return _changed(project.rollout(values["model"], begin=values["version"])[0])


def _require_rollout(project: Project, values: Values) -> None:
    _check_seen(project, values)
    policy = _policy(project, values)
    if policy is None or policy.challenger is None:
        raise ConflictError(f"model {values['model']!r}", "has no rollout in progress", fix="begin one first")


def _preview_advance(project: Project, values: Values) -> list[str]:
    _require_rollout(project, values)
    outcomes = project.rollout(values["model"])
    rule = "The guardrails are judged now: the rollout advances if its step is over and all hold; a breach ends it."
    return [rule, *(line for outcome in outcomes for line in _sentences(outcome))]


def _advance(project: Project, values: Values) -> str:
    _require_rollout(project, values)
    return _changed(project.rollout(values["model"], step=True)[0])


def _changed(outcome: RolloutOutcome) -> str:
    text = "" if outcome.policy is None else f": {policy_text(outcome.policy)}"
    if outcome.change is None:
        return f"Nothing has changed{text}."
    return f"{_CHANGES[outcome.change]}{text}."


def _preview_stop(project: Project, values: Values) -> list[str]:
    _require_rollout(project, values)
    return _preview_rollback(project, values)


def _stop(project: Project, values: Values) -> str:
    _require_rollout(project, values)
    return _rollback(project, values)


def _preview_approve(project: Project, values: Values) -> list[str]:
    approval = project.approve(values["model"], values["version"], by="BY", reason="REASON", dry_run=True)
    needed, given = project.settings.approvals, project.store.approvals.read(values["model"], values["version"])
    return [
        f"Your approval of {values['model']} {approval.version} is recorded, with your name and reason.",
        f"It is of the package with the digest {approval.digest}.",
        f"It has {len(given):,} approvals; a promotion needs {needed:,}.",
    ]


def _approve(project: Project, values: Values) -> str:
    done = project.approve(values["model"], values["version"], by=values["by"], reason=values["reason"])
    return f"{values['model']} {done.version} is approved by {done.by}."


def _preview_measure(project: Project, values: Values) -> list[str]:
    run_id = project.runs.start(_job(values), dry_run=True)
    return [f"The scheduler is asked for a run of the job {run_id.job!r}.", "It begins when a scheduler is free."]


def _measure(project: Project, values: Values) -> str:
    run_id = project.runs.start(_job(values))
    return f"Run {run_id} is requested; its result appears when the scheduler has run it."


def _job(values: Values) -> str:
    if values["what"] not in _MEASURED:
        raise RequestError("job", "does not measure a model", value=values["what"], fix="use quality or drift")
    return f"{values['what']} {values['model']}"


ACTIONS = (
    Action(
        name="promote",
        title="Promote",
        right="admin",
        fields=("model", "version", "seen"),
        preview=_preview_promote,
        run=_promote,
        command="skewless promote {model} {version}",
        word="{model}",
    ),
    Action(
        name="roll-back",
        title="Roll back",
        right="admin",
        fields=("model", "seen"),
        preview=_preview_rollback,
        run=_rollback,
        command='skewless rollback {model} --reason "{reason}"',
        word="{model}",
        ask={"reason": "Reason"},
    ),
    Action(
        name="begin-rollout",
        title="Begin rollout",
        right="operate",
        fields=("model", "version", "seen"),
        preview=_preview_begin,
        run=_begin,
        command="skewless rollout {model} --begin {version}",
    ),
    Action(
        name="advance-rollout",
        title="Judge and advance",
        right="operate",
        fields=("model", "seen"),
        preview=_preview_advance,
        run=_advance,
        command="skewless rollout {model} --step",
    ),
    Action(
        name="stop-rollout",
        title="Stop the rollout",
        right="operate",
        fields=("model", "seen"),
        preview=_preview_stop,
        run=_stop,
        command='skewless rollback {model} --reason "{reason}"',
        ask={"reason": "Reason"},
    ),
    Action(
        name="approve",
        title="Approve",
        right="admin",
        fields=("model", "version"),
        preview=_preview_approve,
        run=_approve,
        command='skewless approve {model} {version} --by "{by}" --reason "{reason}"',
        ask={"by": "Your name", "reason": "Reason, or a link"},
    ),
    Action(
        name="measure-model",
        title="Measure now",
        right="operate",
        fields=("model", "what"),
        preview=_preview_measure,
        run=_measure,
        command="skewless runs start '{what} {model}'",
    ),
)
