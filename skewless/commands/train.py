"""Commands on versions, from ``train`` to ``approve``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.cells import StateCell
from skewless.commands.command import (
    UNCHANGED,
    DryRun,
    ModelName,
    PlannedModels,
    TrainedModels,
    VersionName,
    argument,
    command,
    option,
)
from skewless.commands.output import Part, Session, error_body, records_table, sentence, show_error
from skewless.commands.tables import TextTable
from skewless.contract.errors import GateError, SkewlessError
from skewless.contract.readable import time_text
from skewless.contract.render import count_text

if TYPE_CHECKING:
    from skewless.contract.lifecycle import Rollout
    from skewless.contract.traffic import TrafficPolicy
    from skewless.operations.models.versions import Promotion, Version, VersionsReport
    from skewless.project import Project
    from skewless.training.decision import Decision
    from skewless.training.promotion import TrainReport
    from skewless.training.training_data import TrainingData

MostVersions = Annotated[int | None, option("--limit N", "Number of versions and of changes; default: all.", min=1)]
Before = Annotated[str | None, option("--before VERSION", "List only versions before this one.")]
Start = Annotated[bool, option("--start", "If a trigger fires, request a retraining from the scheduler.")]
RemoveKey = Annotated[
    str | None, option("--remove-key KEY", "Trust a public key no longer; packages it signed are rejected.")
]
BundlePath = Annotated[Path, argument("BUNDLE", "Folder or archive that `skewless bundle` has written.")]
Digest = Annotated[str, option("--digest DIGEST", "Digest of the bundle, as `skewless bundle` has shown it.")]
By = Annotated[str, option("--by NAME", "Who approves.")]
Reason = Annotated[str, option("--reason TEXT", "Why: a sentence, or a link.")]
_BASELINE = "baseline_"
_SIZES = ("rows", "base_rate")
_SKIPPED = {
    "not_yet_known": "without a known label yet",
    "without_label": "without a label",
    "not_askable": "with a null that the server would reject",
    "without_outcome": "without an outcome",
    "unobserved": "with an action that prevents an outcome",
    "retracted": "with a retracted outcome",
    "unusable": "with an outcome that is not a label of the task",
    "without_keys": "with a vector in place of keys",
}
_WORST = 10  # slices


@command(
    "Train models and promote versions that pass their gate.", "--repo my-project", "fraud --json", has_engine=True
)
def train(session: Session, models: PlannedModels = None) -> None:
    """Train new versions of models and promote the versions that pass their gate; exit with code 5 if one does not."""
    from skewless.operations.models.triggers import read_training_causes

    project = session.project
    names = [project.applied.model(name).name for name in models or [spec.name for spec in project.models]]
    causes = read_training_causes(project)
    bodies, parts, errors, tracking_error = [], list[Part](), [], None
    for name in names:
        report, error = _train_model(session, name)
        bodies.append(({"model": name} if report is None else report.as_dict()) | (error_body(error) if error else {}))
        if report is not None:
            parts += [causes[name].sentence(report.trained.package), *_train_parts(report)]
            begins = report.decision.promote and report.decision.by_rollout
            parts += read_rollout_lines(project, name) if begins else []
            tracking_error = tracking_error or report.untracked
        errors += [] if error is None else [error]
    tracking = {} if tracking_error is None else {"tracking": error_body(tracking_error)["error"]}
    lines = parts if names else ["the applied plan has no model: declare one in models.py, and run `skewless apply`"]
    session.show({"models": bodies} | tracking | (error_body(errors[0]) if errors else {}), *lines)
    if tracking_error is not None:
        typer.echo(f"not published: {sentence(tracking_error)}", err=True)
    for error in () if session.as_json else errors:
        show_error(sentence(error))
    if errors:
        raise typer.Exit(errors[0].exit_code)


def _train_model(session: Session, name: str) -> tuple[TrainReport | None, SkewlessError | None]:
    """Return the report of one model, or its error, so that the other models are still trained."""
    try:
        with session.progress(f"training {name}") as on_progress:
            session.project.on_progress = on_progress
            report = session.project.train(name, on_rows=on_progress)
    except SkewlessError as error:
        return None, error
    if report.decision.promote:
        return report, None
    thing = f"model {name!r} {report.trained.package.version}"
    fix = "improve the model, or change its gate in models.py; the champion stays"
    return report, GateError(thing, f"was not promoted: {report.decision.reason}", fix=fix)


def _train_parts(report: TrainReport) -> list[Part]:
    from skewless.training.constraints import constraint_rows

    package, metrics = report.trained.package, report.trained.metrics
    title = f"{package.name} {package.version}: {count_text(int(report.dataset.train.sum()), 'row')} trained"
    tested = f"{count_text(int(metrics['rows']), 'row')} tested, base rate {metrics['base_rate']:.4f}"
    gap = report.dataset.gap.lines() if report.dataset.gap else []
    promoted = "begins its rollout" if report.decision.by_rollout else "promoted to champion"
    verdict = StateCell(promoted, "good") if report.decision.promote else StateCell("not promoted", "bad")
    return [
        TextTable(f"{title}, {tested}", ("metric", "model", "base rate"), metric_rows(metrics)),
        *_label_lines(report.dataset),
        *(f"constraint: {' '.join(row)}" for row in constraint_rows(package.about)),
        *gap,
        *decision_parts(report.decision),
        StateCell(f"{package.name} {package.version} {verdict.text}", verdict.tone, f": {report.decision.reason}"),
    ]


def _label_lines(dataset: TrainingData) -> Iterator[str]:
    counts, rows = dataset.counts, count_text(dataset.counts["rows"], "row")
    skipped = ", ".join(f"{counts[name]:,} {text}" for name, text in _SKIPPED.items() if counts.get(name))
    source = f"label table: {counts['used']:,} of {rows} used"
    if "predictions" in counts:
        source = f"outcomes: {counts['used']:,} of {rows} from {count_text(counts['predictions'], 'prediction')} used"
    yield source + (f"; skipped: {skipped}" if skipped else "")
    if "logged_vectors" in counts:
        different = f"{counts['different_vectors']:,} have other values than the log gives"
        yield f"vectors: {counts['logged_vectors']:,} as logged, of which {different}"
    for name, weights in dataset.weight_summary.items():
        clipped = f", {counts['clipped']:,} clipped" if counts.get("clipped") else ""
        yield (
            f"weights: {weights['rows']:,} {name} rows are worth {weights['effective']:,.0f} of equal weight; "
            f"the largest weight is {weights['largest']:.4g}{clipped}"
        )


def metric_rows(metrics: Mapping[str, float | None]) -> list[tuple[str, float | None, float | None]]:
    """Return each metric of the model and of the constant prediction.

    >>> metric_rows({"rows": 9.0, "base_rate": 0.5, "auc": 0.7, "baseline_auc": 0.5})
    [('auc', 0.7, 0.5)]
    """
    names = [name for name in metrics if not name.startswith(_BASELINE) and name not in _SIZES]
    return [(name, metrics[name], metrics.get(_BASELINE + name)) for name in names]


@command(
    "Evaluate a version and promote it if it passes its gate.",
    "fraud 000003 --dry-run",
    "fraud --repo my-project --json",
)
def promote(session: Session, model: ModelName, version: VersionName = None, *, dry_run: DryRun = False) -> None:
    """Evaluate a version and the champion on the latest test rows, and promote the version if it passes its gate.

    A model with a rollout begins it. Exit with code 5 if the gate fails, and with code 9 if another process has
    promoted a version or begun a rollout meanwhile.
    """
    project = session.project
    with session.progress(f"comparing versions of {model}") as on_progress:
        planned = project.promote(model, version, dry_run=dry_run, on_rows=on_progress)
    refusal = planned.refusal
    body = {"dry_run": dry_run, **planned.as_dict()} | (error_body(refusal) if refusal else {})
    tables = decision_parts(planned.decision) if planned.decision else []
    lines = read_rollout_lines(project, model) if planned.way == "rollout" and not dry_run else []
    session.show(body, *tables, _promotion_line(planned, dry_run=dry_run), *lines)
    if refusal:
        raise typer.Exit(refusal.exit_code)


def _promotion_line(planned: Promotion, *, dry_run: bool) -> str:
    name = f"{planned.model} {planned.version}"
    if planned.decision is None:
        return f"{name} is already champion"
    result = {
        "nothing": "is not promoted",
        "at_once": "would be champion" if dry_run else "is champion",
        "rollout": "would begin its rollout" if dry_run else "has begun its rollout",
    }[planned.way]
    return f"{name} {result}: {planned.decision.reason}"


def decision_parts(decision: Decision) -> list[Part]:
    """Return tables of the comparison with the champion; empty: the model had no champion."""
    gain = decision.gain
    if gain is None:
        return []
    columns = ("slice", "rows", "version", "champion", "gain", "at least", "at most", "verdict")
    rows: list[tuple[object, ...]] = [
        ("all test rows", gain.rows, gain.candidate, gain.champion, gain.gain, gain.low, gain.high, "")
    ]
    for item in decision.slices[:_WORST]:
        verdict = StateCell("lost", "bad") if item.lost else ""
        own = item.gain
        name = f"{item.column} {item.value}"
        rows.append((name, own.rows, own.candidate, own.champion, own.gain, own.low, own.high, verdict))
    more = len(decision.slices) - _WORST
    title = f"{gain.metric} against the champion's on the same rows, {gain.confidence:.4g} confidence"
    return [TextTable(title, columns, rows), *([f"{more:,} more slices gain no less"] if more > 0 else [])]


@command(
    "List a model's versions and the changes of its aliases.", "fraud --repo my-project", "fraud --json", is_short=True
)
def versions(session: Session, model: ModelName, *, limit: MostVersions = None, before: Before = None) -> None:
    """List a model's versions with aliases, metrics and last decision, and all changes of its aliases."""
    report = session.project.versions(model, limit=limit, before=before)
    session.show(report.as_dict(), *_version_parts(report))


def _version_parts(report: VersionsReport) -> list[Part]:
    columns = ("version", "aliases", "trained at", "plan hash", "rows", report.metric, "decision")
    parts: list[Part] = [
        TextTable(
            f"versions of {report.model}", columns, [_version_row(each, report.metric) for each in report.versions]
        )
    ]
    if report.moves:
        parts.append(records_table("alias changes", report.moves, ("at_us", "alias", "expect", "to", "reason")))
    return parts


def _version_row(version: Version, metric: str) -> tuple[object, ...]:
    aliases = ", ".join(version.aliases) or None
    if version.problem:
        return (version.version, aliases, None, None, None, None, version.problem)
    decision = None
    if version.decision:
        decision = f"{'promoted' if version.decision['promote'] else 'not promoted'}: {version.decision['reason']}"
    value = (version.metrics or {}).get(metric)
    times = time_text(version.trained_at), version.plan_hash
    return (version.version, aliases, *times, version.rows, value, decision)


@command("Show whether a model needs retraining, and why.", "fraud --repo my-project", "fraud --start --json")
def triggers(session: Session, model: ModelName, *, start: Start = False) -> None:
    """Show whether a model needs retraining, and why, by the triggers of its ModelSpec."""
    report = session.project.triggers(model, start=start)
    rows = [(cause.name, cause.sentence) for cause in report.causes]
    part: Part = TextTable(f"{model} needs retraining", ("trigger", "reason"), rows)
    session.show(report.as_dict(), part if rows else f"{model}: no trigger fires")


@command(
    "Sign packages that have no signature.",
    "--repo my-project",
    "fraud --dry-run --json",
    "--remove-key KEY --dry-run",
)
def sign(
    session: Session, models: TrainedModels = None, *, remove_key: RemoveKey = None, dry_run: DryRun = False
) -> None:
    """Sign packages that have no signature, and show the public key; or remove a trusted key.

    Servers run the code of a package: sign only packages that you trust.
    """
    report = session.project.sign(models or (), remove_key=remove_key, dry_run=dry_run)
    unchanged = (UNCHANGED,) if dry_run and remove_key is not None else ()
    session.show({"dry_run": dry_run, **report.as_dict()}, *report.lines(), *unchanged)


def read_rollout_lines(project: Project, model: str) -> list[str]:
    """Return what happens next in a model's rollout; empty: it has none."""
    from skewless.operations.models.rollout import rollout_of

    policy = project.store.traffic.get(model)
    return [] if policy is None else rollout_lines(model, policy, rollout_of(project, model))


def rollout_lines(model: str, policy: TrafficPolicy, rollout: Rollout) -> list[str]:
    """Return a line about the phase and its end, and a line with the next commands; empty without a rollout."""
    from skewless.training.rollout.plan import phase_duration

    if policy.challenger is None:
        return []
    end = time_text(policy.since_us + phase_duration(policy, rollout) // timedelta(microseconds=1))
    traffic = {
        "shadow": f"is scored as a shadow, and champion {policy.champion} answers all requests,",
        "ab": f"answers {policy.share:.4g} of the entities in an A/B test",
    }.get(policy.phase, f"answers {policy.share:.4g} of the entities")
    least = f"at least until {end}, and until each version has {rollout.guardrails.least_requests:,} requests"
    until = f"until labels decide, at most until {end}" if policy.phase == "ab" else least
    commands = (
        f"`skewless scheduler` advances it (or `skewless rollout {model} --step`, once);"
        f" `skewless rollout {model}` shows it; `skewless rollback {model}` ends it"
    )
    return [f"rollout of {model} {policy.challenger}: it {traffic} {until}", f"next: {commands}"]


@command(
    "Adopt a version from the bundle of another environment.",
    "fraud.tar.gz fraud --digest 4f2a... --repo my-project",
    "fraud.tar.gz fraud --digest 4f2a... --dry-run",
)
def adopt(session: Session, bundle: BundlePath, model: ModelName, *, digest: Digest, dry_run: DryRun = False) -> None:
    """Copy a version from a bundle that `skewless bundle` has written in another environment.

    It becomes the next version here, without traffic; promote it with `skewless promote`.
    """
    adopted = session.project.adopt(bundle, model, digest=digest, dry_run=dry_run)
    name = f"{model} {adopted.version or '(new)'}"
    done = "was here already" if not adopted.is_new else "would be adopted" if dry_run else "is adopted"
    line = f"{name} {done}: version {adopted.origin.version} of the bundle, content {adopted.content}"
    session.show({"dry_run": dry_run, **adopted.as_dict()}, line, *([UNCHANGED] if dry_run else []))


@command(
    "Record that a person approves a version.",
    'fraud 000003 --by "Ada L." --reason "ticket 77" --repo my-project',
    'fraud --by ada --reason "slices looked at" --dry-run',
    is_short=True,
)
def approve(
    session: Session, model: ModelName, version: VersionName = None, *, by: By, reason: Reason, dry_run: DryRun = False
) -> None:
    """Record that a person approves a version; the setting `approvals` is how many a promotion needs."""
    approval = session.project.approve(model, version, by=by, reason=reason, dry_run=dry_run)
    done = "would be approved" if dry_run else "is approved"
    line = f"{model} {approval.version} {done} by {approval.by}: {approval.reason}"
    session.show({"dry_run": dry_run, "model": model, **approval.as_dict()}, line, *([UNCHANGED] if dry_run else []))
