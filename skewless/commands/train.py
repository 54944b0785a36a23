"""``skewless train``: new versions of models, measured against the base rate, promoted by their gates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.decided import decided
from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Output, answering, error_body, table
from skewless.contract.errors import GateError, SkewlessError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.project import Project
    from skewless.training.promotion import TrainReport

_BASELINE = "baseline_"
_SIZES = ("rows", "base_rate")

Models = Annotated[list[str] | None, typer.Argument(metavar="MODELS", help="Models; none: all of the plan.")]


def train(models: Models = None, *, repo: Repo = Path(), as_json: Json = False) -> None:
    """Train new versions of models and promote those that pass their gate; exit 5 if one does not."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        names = [project.applied.model(name).name for name in models or [spec.name for spec in project.models]]
        bodies, parts, errors, untracked = [], [], [], None
        for name in names:
            report, error = _train(project, name, output)
            bodies.append(
                ({"model": name} if report is None else report.as_dict()) | (error_body(error) if error else {})
            )
            if report is not None:
                parts += _shown(report)
                untracked = untracked or report.untracked
            errors += [] if error is None else [error]
        tracking = {} if untracked is None else {"tracking": error_body(untracked)["error"]}
        output.answer({"models": bodies} | tracking | (error_body(errors[0]) if errors else {}), *parts)
        if untracked is not None:
            typer.echo(f"not published: {error_body(untracked)['error']['message']}", err=True)
        for error in () if as_json else errors:
            typer.echo(f"error: {error_body(error)['error']['message']}", err=True)
        if errors:
            raise typer.Exit(errors[0].exit_code)


def _train(project: Project, name: str, output: Output) -> tuple[TrainReport | None, SkewlessError | None]:
    """Return what came of one model, so that the others are still trained."""
    try:
        with output.progress(f"training {name}") as bar:
            report = project.train(name, on_rows=bar)
    except SkewlessError as error:
        return None, error
    if report.decision.promote:
        return report, None
    thing = f"model {name!r} {report.trained.package.version}"
    fix = "improve the model, or change its gate in models.py; the champion stays"
    return report, GateError(thing, f"was not promoted: {report.decision.reason}", fix=fix)


def _shown(report: TrainReport) -> list[RenderableType]:
    package, metrics = report.trained.package, report.trained.metrics
    title = f"{package.name} {package.version}: {int(report.dataset.train.sum()):,} rows trained"
    tested = f"{int(metrics['rows']):,} rows tested, base rate {metrics['base_rate']:.4f}"
    way = "begins its rollout" if report.decision.by_rollout else "promoted to champion"
    verdict = way if report.decision.promote else "not promoted"
    shown = table(f"{title}, {tested}", ("metric", "model", "base rate"), metric_rows(metrics))
    gap = report.dataset.gap.lines() if report.dataset.gap else []
    return [
        shown,
        *gap,
        *decided(report.decision),
        f"{package.name} {package.version} {verdict}: {report.decision.reason}\n",
    ]


def metric_rows(metrics: Mapping[str, float | None]) -> list[tuple[str, float | None, float | None]]:
    """Return each metric beside that of the constant prediction.

    >>> metric_rows({"rows": 9.0, "base_rate": 0.5, "auc": 0.7, "baseline_auc": 0.5})
    [('auc', 0.7, 0.5)]
    """
    names = [name for name in metrics if not name.startswith(_BASELINE) and name not in _SIZES]
    return [(name, metrics[name], metrics.get(_BASELINE + name)) for name in names]
