"""``skewless why``: one logged prediction, explained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Part, command_output, table
from skewless.operations.readable import duration_text, time_text

if TYPE_CHECKING:
    from skewless.operations.why import WhyReport
    from skewless.validation.explanation import ExplainedFeature

Prediction = Annotated[str, typer.Argument(metavar="PREDICTION_ID", help="Id of a prediction, from its reply.")]
Proof = Annotated[bool, typer.Option("--proof/--no-proof", help="Replay the prediction from the accepted log too.")]


def why(prediction: Prediction, *, proof: Proof = True, repo: Repo = Path(), as_json: Json = False) -> None:
    """Explain one logged prediction: its values and contributions, and the data, model and code that made it."""
    with command_output(as_json=as_json, is_short=True) as output:
        project = open_project(output, repo)
        with output.working("explaining the prediction"):
            report = project.why(prediction, proof=proof)
        output.show(report.as_dict(), *_parts(report))


def _parts(report: WhyReport) -> list[Part]:
    body, explanation = report.as_dict(), report.explanation
    policy = f" under policy {body['policy']}" if body["policy"] is not None else ""
    role = f" as {body['role']}{policy}" if body["role"] else ""
    title = f"{report.prediction}: {report.package.name} {report.package.version}{role} at {time_text(body['time'])}"
    inputs = f"a vector of {len(explanation.features)} numbers"
    if body["source"] == "entities":
        inputs = ", ".join(f"{name} {value}" for name, value in body["inputs"].items())
    code = body["code"]
    bias = "" if explanation.bias is None else f" = bias {explanation.bias:.6f} and the contributions"
    reads = [
        (read.view, read.status, _age(read.age_s), _text(read.run), _text(read.position), read.hash)
        for read in explanation.reads
    ]
    transforms = ", ".join(f"{name} {digest}" for name, digest in report.transforms.items())
    return [
        title,
        f"inputs: {inputs}",
        f"score {explanation.score!r}, margin {explanation.margin:.6f}{bias}",
        table(
            "features, the largest contribution first",
            ("feature", "value", "status", "age", "contribution"),
            [_row(item) for item in explanation.features],
        ),
        table("rows read", ("view", "status", "age", "run", "position", "view hash"), reads),
        f"nearest bound ({'declared' if report.declared else 'range of training'}): "
        + (report.bound.line() if report.bound else "none"),
        *(f"outside its bounds: {line}" for line in report.outside),
        f"outcome: {_outcome(report)}",
        f"plan {code['plan']}, transforms {transforms or 'none'}, {code['runtime']}, package {code['package'][:16]}",
        f"trained {time_text(body['data']['trained_at']) or '-'} on dataset {body['data']['dataset']}",
        *([] if report.proof is None else [f"proof: {line}" for line in report.proof.lines()[:1]]),
    ]


def _outcome(report: WhyReport) -> str:
    if report.outcome is None:
        return "not known yet"
    value = "" if report.outcome["value"] is None else f", business value {report.outcome['value']:g}"
    return f"label {report.outcome['label']}{value}, known {time_text(report.outcome['known_at'])}"


def _row(item: ExplainedFeature) -> tuple[object, ...]:
    value = repr(item.value) if isinstance(item.value, float) else item.value
    return item.feature, value, item.status, _age(item.age_s), item.contribution


def _age(seconds: float | None) -> str | None:
    return None if seconds is None else duration_text(seconds)


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
