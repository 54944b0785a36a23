"""Commands on logged predictions and online states: ``why``, ``replay`` and ``parity``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.cells import StateCell
from skewless.commands.command import Model, Seed, Views, command, fail_if
from skewless.commands.output import Part, Session
from skewless.commands.tables import TextTable
from skewless.operations.readable import duration_text, time_text

if TYPE_CHECKING:
    from skewless.operations.why import WhyReport
    from skewless.validation.explanation import ExplainedFeature
    from skewless.validation.parity_report import ParityReport
    from skewless.validation.replay_report import ReplayReport

Prediction = Annotated[str, typer.Argument(metavar="PREDICTION_ID", help="Id of a prediction, from its reply.")]
Proof = Annotated[bool, typer.Option("--proof/--no-proof", help="Replay the prediction from the accepted log too.")]
New = Annotated[bool, typer.Option("--new", help="Skip log files that an earlier replay has proven.")]
Sample = Annotated[int, typer.Option("--sample", metavar="N", min=1, help="Number of entities of each view.")]
Repair = Annotated[bool, typer.Option("--repair", help="Repair mismatches from the log.")]


@command("Explain one logged prediction.", "5c0d81-1f --repo my-project", "5c0d81-1f --no-proof --json", is_short=True)
def why(session: Session, prediction: Prediction, *, proof: Proof = True) -> None:
    """Explain one logged prediction: its values and contributions, and the data, model and code that made it."""
    with session.working("explaining the prediction") as project:
        report = project.why(prediction, proof=proof)
    session.show(report.as_dict(), *_parts(report))


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
        TextTable(
            "features, the largest contribution first",
            ("feature", "value", "status", "age", "contribution"),
            [_row(item) for item in explanation.features],
        ),
        TextTable("rows read", ("view", "status", "age", "run", "position", "view hash"), reads),
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


@command("Recompute logged predictions and compare them bit for bit.", "--repo my-project", "--new --json")
def replay(session: Session, model: Model = None, *, new: New = False) -> None:
    """Recompute logged predictions from the accepted log, without Redis; exit with code 5 if a bit differs."""
    with session.working("replaying the prediction log") as project:
        report = project.replay(model, new=new)
    _show_verdict(session, report)


@command("Compare the online store with the log.", "--repo my-project", "carrier_now --sample 5000 --repair --json")
def parity(
    session: Session, views: Views = None, *, sample: Sample = 1_000, seed: Seed = 0, repair: Repair = False
) -> None:
    """Compare the online store with the log, for a sample of entities; exit with code 5 if a bit differs."""
    with session.working("comparing the online store with the log") as project:
        report = project.parity(views or (), sample=sample, seed=seed, repair=repair)
    _show_verdict(session, report)


def _show_verdict(session: Session, report: ReplayReport | ParityReport) -> None:
    """Show the lines of a report, with the tone of its verdict on the first."""
    first, *lines = report.lines()
    session.show({"ok": report.ok, **report.as_dict()}, StateCell(first, "good" if report.ok else "bad"), *lines)
    fail_if(not report.ok)
