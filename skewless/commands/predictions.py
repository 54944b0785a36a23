"""Commands on logged predictions: ``predictions`` and ``why``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from skewless.commands.command import Model, argument, command, option
from skewless.commands.output import Part, Session, records_table
from skewless.commands.tables import TextTable
from skewless.contract.readable import duration_text, time_text
from skewless.contract.render import count_text, shorten

if TYPE_CHECKING:
    from skewless.operations.predictions.why import WhyReport
    from skewless.validation.explanation import ExplainedFeature
    from skewless.validation.similar import SimilarPrediction

Prediction = Annotated[str, argument("PREDICTION_ID", "Id of a prediction, from its reply.")]
Proof = Annotated[bool, option("--proof/--no-proof", "Replay the prediction from the accepted log too.")]
EntityKey = Annotated[list[str] | None, option("--key NAME=VALUE", "Only of this entity; once for each join key.")]
Limit = Annotated[int, option("--limit N", "Number of predictions.", min=1, max=1000)]
Place = Annotated[str | None, option("--page PLACE", "Continue a list: the `next_page` of its JSON.")]
_COLUMNS = ("id", "time_us", "model", "version", "role", "score", "inputs")
_MOST_INPUTS = 60


@command(
    "List the latest logged predictions.",
    "fraud --limit 10 --repo my-project",
    "--key card_id=9007199254740993 --json",
)
def predictions(
    session: Session, model: Model = None, *, key: EntityKey = None, limit: Limit = 50, page: Place = None
) -> None:
    """List the latest predictions in the log, of all entities or of one. Only the latest part of the log is read."""
    keys = dict(item.partition("=")[::2] for item in key or ())
    with session.working("reading the prediction log") as project:
        found = project.predictions(model, keys=keys, limit=limit, page=page)
    rows = [{**vars(row), "time_us": row.t_us, "inputs": shorten(row.inputs, _MOST_INPUTS)} for row in found.rows]
    since = "" if found.since_us is None else f", back to {time_text(found.since_us)}"
    further = ", there are earlier ones" if found.next_page else ""
    looked = f"looked through {found.looked:,} of {count_text(found.total, 'prediction')}{since}{further}"
    session.show(found.as_dict(), records_table("predictions", rows, _COLUMNS), looked)


@command(
    "Explain one logged prediction.",
    "19ad1f7c2e0-8c81a2f7-1f --repo my-project",
    "19ad1f7c2e0-8c81a2f7-1f --no-proof --json",
    is_short=True,
)
def why(session: Session, prediction: Prediction, *, proof: Proof = True) -> None:
    """Explain one logged prediction: its values and contributions, and the data, model and code that made it."""
    with session.working("explaining the prediction") as project:
        report = project.why(prediction, proof=proof)
    session.show(report.as_dict(), *_why_parts(report))


def _why_parts(report: WhyReport) -> list[Part]:
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
            [_feature_row(item) for item in explanation.features],
        ),
        TextTable("rows read", ("view", "status", "age", "run", "position", "view hash"), reads),
        f"nearest bound ({'declared' if report.declared else 'range of training'}): "
        + (report.bound.line() if report.bound else "none"),
        *(f"outside its bounds: {line}" for line in report.outside),
        *_similar(report),
        f"outcome: {_outcome(report)}",
        f"plan {code['plan']}, transforms {transforms or 'none'}, {code['runtime']}, package {code['package'][:16]}",
        f"trained {time_text(body['data']['trained_at']) or '-'} on dataset {body['data']['dataset']}",
        *([] if report.proof is None else [f"proof: {line}" for line in report.proof.lines()[:1]]),
    ]


def _similar(report: WhyReport) -> list[str]:
    similar = report.similar
    lines = [
        f"{title}: {_compared(item)}"
        for title, item in (
            (f"nearest of {count_text(similar.compared, 'prediction')}", similar.nearest),
            ("nearest with another decision", similar.other_decision),
        )
        if item is not None
    ]
    reasons, propensity = (report.facts[name] for name in ("reasons", "propensity"))
    cause = (f", for {', '.join(reasons)}" if reasons else "") + (f", propensity {propensity:g}" if propensity else "")
    return [f"decision: {similar.decision}{cause}", *lines] if similar.decision else lines


def _compared(item: SimilarPrediction) -> str:
    decision = f", {item.decision}" if item.decision else ""
    features = "; ".join(f"{each.feature} {each.own} here, {each.other} there" for each in item.differences[:3])
    return f"{item.id}, score {item.score!r}{decision}, distance {item.distance:.4f}{features and f' ({features})'}"


def _outcome(report: WhyReport) -> str:
    if report.outcome is None:
        return "not known yet"
    value = "" if report.outcome["value"] is None else f", business value {report.outcome['value']:g}"
    return f"label {report.outcome['label']}{value}, known {time_text(report.outcome['known_at'])}"


def _feature_row(item: ExplainedFeature) -> tuple[object, ...]:
    value = repr(item.value) if isinstance(item.value, float) else item.value
    return item.feature, value, item.status, _age(item.age_s), item.contribution


def _age(seconds: float | None) -> str | None:
    return None if seconds is None else duration_text(seconds)


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
