"""``skewless train``: new versions of models, evaluated and promoted by their gates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.cells import StateCell
from skewless.commands.decision_text import decision_parts
from skewless.commands.options import Engine, Json, Repo, open_project
from skewless.commands.output import Output, Part, command_output, error_body, show_error, table
from skewless.commands.rollout_text import read_rollout_lines
from skewless.contract.errors import GateError, SkewlessError
from skewless.contract.render import count_text

if TYPE_CHECKING:
    from skewless.project import Project
    from skewless.training.promotion import TrainReport

_BASELINE = "baseline_"
_SIZES = ("rows", "base_rate")
_SKIPPED = {
    "not_yet_known": "without a known label yet",
    "without_label": "without a label",
    "not_askable": "with a null that the server would reject",
}

Models = Annotated[list[str] | None, typer.Argument(metavar="MODELS", help="Models; default: all of the plan.")]


def train(models: Models = None, *, repo: Repo = Path(), engine: Engine = None, as_json: Json = False) -> None:
    """Train new versions of models and promote the versions that pass their gate; exit with code 5 if one does not."""
    from skewless.operations.training_causes import read_training_causes

    with command_output(as_json=as_json) as output:
        project = open_project(output, repo, engine=engine)
        names = [project.applied.model(name).name for name in models or [spec.name for spec in project.models]]
        causes = read_training_causes(project)
        bodies, parts, errors, tracking_error = [], list[Part](), [], None
        for name in names:
            report, error = _train_model(project, name, output)
            bodies.append(
                ({"model": name} if report is None else report.as_dict()) | (error_body(error) if error else {})
            )
            if report is not None:
                parts += [causes[name].sentence(report.trained.package), *_parts(report)]
                begins = report.decision.promote and report.decision.by_rollout
                parts += read_rollout_lines(project, name) if begins else []
                tracking_error = tracking_error or report.untracked
            errors += [] if error is None else [error]
        tracking = {} if tracking_error is None else {"tracking": error_body(tracking_error)["error"]}
        output.show({"models": bodies} | tracking | (error_body(errors[0]) if errors else {}), *parts)
        if tracking_error is not None:
            typer.echo(f"not published: {error_body(tracking_error)['error']['message']}", err=True)
        for error in () if as_json else errors:
            show_error(error_body(error)["error"]["message"])
        if errors:
            raise typer.Exit(errors[0].exit_code)


def _train_model(project: Project, name: str, output: Output) -> tuple[TrainReport | None, SkewlessError | None]:
    """Return the report of one model, or its error, so that the other models are still trained."""
    try:
        with output.progress(f"training {name}") as on_progress:
            project.on_progress = on_progress
            report = project.train(name, on_rows=on_progress)
    except SkewlessError as error:
        return None, error
    if report.decision.promote:
        return report, None
    thing = f"model {name!r} {report.trained.package.version}"
    fix = "improve the model, or change its gate in models.py; the champion stays"
    return report, GateError(thing, f"was not promoted: {report.decision.reason}", fix=fix)


def _parts(report: TrainReport) -> list[Part]:
    package, metrics = report.trained.package, report.trained.metrics
    title = f"{package.name} {package.version}: {count_text(int(report.dataset.train.sum()), 'row')} trained"
    tested = f"{count_text(int(metrics['rows']), 'row')} tested, base rate {metrics['base_rate']:.4f}"
    gap = report.dataset.gap.lines() if report.dataset.gap else []
    promoted = "begins its rollout" if report.decision.by_rollout else "promoted to champion"
    verdict = StateCell(promoted, "good") if report.decision.promote else StateCell("not promoted", "bad")
    return [
        table(f"{title}, {tested}", ("metric", "model", "base rate"), metric_rows(metrics)),
        _label_line(report.dataset.counts),
        *gap,
        *decision_parts(report.decision),
        StateCell(f"{package.name} {package.version} {verdict.text}", verdict.tone, f": {report.decision.reason}"),
    ]


def _label_line(counts: Mapping[str, int]) -> str:
    skipped = ", ".join(f"{counts[name]:,} {text}" for name, text in _SKIPPED.items() if counts.get(name))
    return f"label table: {counts['used']:,} of {count_text(counts['rows'], 'row')} used" + (
        f"; skipped: {skipped}" if skipped else ""
    )


def metric_rows(metrics: Mapping[str, float | None]) -> list[tuple[str, float | None, float | None]]:
    """Return each metric of the model and of the constant prediction.

    >>> metric_rows({"rows": 9.0, "base_rate": 0.5, "auc": 0.7, "baseline_auc": 0.5})
    [('auc', 0.7, 0.5)]
    """
    names = [name for name in metrics if not name.startswith(_BASELINE) and name not in _SIZES]
    return [(name, metrics[name], metrics.get(_BASELINE + name)) for name in names]
