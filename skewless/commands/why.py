"""``skewless why``: one logged prediction taken apart: values, ages, contributions, versions, proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.operations.why import WhyReport
    from skewless.validation.explanation import ExplainedFeature

Prediction = Annotated[str, typer.Argument(metavar="PREDICTION_ID", help="The id of a prediction, as in its reply.")]
Proof = Annotated[bool, typer.Option("--proof/--no-proof", help="Replay the prediction from the accepted log too.")]


def why(prediction: Prediction, *, proof: Proof = True, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show what a prediction saw, what each value added, and from which data, model and code it came."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("looking the prediction up"):
            found = project.why(prediction, proof=proof)
        output.answer(found.as_dict(), *_shown(found))


def _shown(found: WhyReport) -> list[RenderableType]:
    body, explanation = found.as_dict(), found.explanation
    role = f" as {body['role']} under policy {body['policy']}" if body["role"] else ""
    title = f"{found.prediction}: {found.package.name} {found.package.version}{role} at {body['time']}"
    asked = body["inputs"] if body["source"] == "entities" else f"a vector of {len(explanation.features)} numbers"
    code = body["code"]
    lines = [
        f"asked: {asked}",
        f"score {explanation.score!r}, margin {explanation.margin:.6f}"
        + ("" if explanation.bias is None else f" = bias {explanation.bias:.6f} and the contributions"),
    ]
    reads = [(read.view, read.status, read.age_s, read.run, read.position, read.hash) for read in explanation.reads]
    transforms = ", ".join(f"{name} {digest}" for name, digest in found.transforms.items())
    return [
        title,
        *lines,
        table(
            "features, the greatest contribution first",
            ("feature", "value", "status", "age, s", "added to margin"),
            [_row(item) for item in explanation.features],
        ),
        table("rows read", ("view", "status", "age, s", "run", "position", "view hash"), reads),
        f"nearest bound ({'declared' if found.declared else 'seen in training'}): "
        + (found.bound.line() if found.bound else "none"),
        *(f"outside its bounds: {line}" for line in found.outside),
        f"outcome: {_outcome(found)}",
        f"plan {code['plan']}, transforms {transforms or 'none'}, {code['runtime']}, package {code['package'][:16]}",
        f"trained {body['data']['trained_at']} on dataset {body['data']['dataset']}",
        *([] if found.proof is None else [f"proof: {line}" for line in found.proof.lines()[:1]]),
    ]


def _outcome(found: WhyReport) -> str:
    from skewless.contract.clock import from_us

    if found.outcome is None:
        return "not known yet"
    value = "" if found.outcome["value"] is None else f", business value {found.outcome['value']:g}"
    return f"label {found.outcome['label']}{value}, known {from_us(found.outcome['known_at']).isoformat()}"


def _row(item: ExplainedFeature) -> tuple[object, ...]:
    shown = repr(item.value) if isinstance(item.value, float) else item.value
    return item.feature, shown, item.status, item.age_s, item.contribution
