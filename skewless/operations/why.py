"""Why a logged prediction was what it was: its values and their origin, the model, the bounds, and the proof."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from skewless.contract.errors import RequestError

if TYPE_CHECKING:
    from skewless.infra.packages.package import Package
    from skewless.infra.packages.served_model import ServedModel
    from skewless.infra.predictions.reader import PredictionEntry
    from skewless.validation.explanation import Bounds, Explanation, NearestBound
    from skewless.validation.replay_report import ReplayReport
    from skewless.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class WhyReport:
    """Everything that is known of one prediction.

    Args:
        facts: what the log says of it in one text or number, by column.
        package: of the version that answered.
        transforms: name -> hash of the transform that was used.
        bound: the bound that the vector breaks or comes nearest to.
        declared: whether it is a suite's; else the range of the training data.
        outside: the features that no suite's bound holds, each in a sentence.
        outcome: label, business value and when they became known; None: nothing is known.
        proof: what replay found; None if it was not asked for.
    """

    prediction: str
    facts: dict[str, Any]
    explanation: Explanation
    package: Package
    transforms: dict[str, str]
    bound: NearestBound | None
    declared: bool
    outside: list[str]
    outcome: dict[str, Any] | None
    proof: ReplayReport | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        from skewless.contract.clock import from_us

        package, facts, proof = self.package, self.facts, self.proof
        return {
            "id": self.prediction,
            "model": package.name,
            "version": package.version,
            "role": facts.get("role"),
            "policy": facts.get("policy"),
            "time": from_us(facts["t"]).isoformat(),
            "t_us": facts["t"],
            "asked_at_us": facts["asked_at"],
            "source": facts["source"],
            "narrow": facts["narrow"],
            **self.explanation.as_dict(),
            "nearest_bound": self.bound
            and {**asdict(self.bound), "broken": self.bound.broken, "declared": self.declared},
            "outside_bounds": self.outside,
            "outcome": self.outcome,
            "data": {"dataset": package.fingerprint.get("dataset"), "trained_at": package.about.get("trained_at")},
            "code": {
                "plan": facts["plan_hash"],
                "transforms": self.transforms,
                "package": package.digest,
                "runtime": facts["runtime_id"],
                "library": package.about.get("library"),
            },
            "proof": None if proof is None else {"ok": proof.ok, "line": proof.lines()[0], **_causes(proof)},
        }


def why(project: Workspace, prediction: str, *, proven: bool = True) -> WhyReport:
    """Return everything that is known of one prediction.

    Args:
        proven: also replay it.

    Raises:
        RequestError: the log does not hold it.
        PackageError: the package that answered was altered or is gone.
    """
    from skewless.infra.packages.served_model import load_model
    from skewless.infra.predictions.reader import PredictionLog
    from skewless.validation.explanation import explain

    entry = PredictionLog(project.state / "predictions", project.connection).find(prediction)
    if entry is None:
        raise RequestError(
            "prediction", "is not in the log", value=prediction, fix="give an id of a reply; wait for the log's flush"
        )
    model = load_model(project.store, entry.model_version.model, entry.model_version.version)
    try:
        bound, declared = _nearest(model, entry)
        explanation = explain(model, entry)
        return WhyReport(
            prediction=prediction,
            facts=dict(entry.facts),
            explanation=explanation,
            package=model.package,
            transforms=_transforms(model, entry),
            bound=bound,
            declared=declared,
            outside=_outside(model, explanation),
            outcome=_outcome(project, entry),
            proof=_proof(project, model, entry) if proven else None,
        )
    finally:
        model.runtime.close()


def _transforms(model: ServedModel, entry: PredictionEntry) -> dict[str, str]:
    names = [item.name for item in model.plan.transforms]
    return dict(zip(names, entry.logged.transform_hashes[0], strict=False))


def _nearest(model: ServedModel, entry: PredictionEntry) -> tuple[NearestBound | None, bool]:
    from skewless.contract.bounds import Bounds
    from skewless.validation.explanation import nearest_bound

    seen = _ranges(model)
    values = dict(zip(model.assembler.labels, entry.logged.vectors[0].tolist(), strict=True))
    spreads = {name: high - low for name, (low, high) in seen.items() if low is not None and high is not None}
    declared = Bounds.from_dict(model.package.bounds).features
    limits = {name: (bound.low, bound.high) for name, bound in declared.items() if name in seen}
    found = nearest_bound(limits, values, spreads)
    return (found, True) if found else (nearest_bound(seen, values, spreads), False)


def _outside(model: ServedModel, explanation: Explanation) -> list[str]:
    from skewless.contract.bounds import Bounds

    bounds = Bounds.from_dict(model.package.bounds).features
    return [
        f"{item.feature} = {item.value!r}: {bounds[item.feature].sentence()} was declared"
        for item in explanation.features
        if item.feature in bounds and not bounds[item.feature].holds(item.value)
    ]


def _outcome(project: Workspace, entry: PredictionEntry) -> dict[str, Any] | None:
    """Return what is known by now of what came of a prediction."""
    import pyarrow.compute as pc

    from skewless.operations.quality import labelled_log

    if entry.model_version.model not in {spec.name for spec in project.models}:
        return None
    # A label by entity belongs to the nearest prediction, so those around are looked at too.
    t, tolerance = int(entry.logged.t[0]), project.applied.model(entry.model_version.model).labels.tolerance
    around = 2 * (tolerance // timedelta(microseconds=1))
    rows = labelled_log(project, entry.model_version.model).read(
        since_us=t - around, until_us=t + around + 1, known_by_us=project.clock.now_us()
    )
    own = rows.filter(pc.field("id") == entry.logged.ids[0]).select(["label", "value", "known_at"]).to_pylist()
    return own[0] if own and own[0]["known_at"] is not None else None


def _ranges(model: ServedModel) -> Bounds:
    """Return what the training data held of each number; the codes of categories have no order."""
    labels = [label for i, label in enumerate(model.assembler.labels) if i not in model.assembler.categorical]
    features = model.package.profile["features"]
    return {label: (features[label]["min"], features[label]["max"]) for label in labels if label in features}


def _proof(project: Workspace, model: ServedModel, entry: PredictionEntry) -> ReplayReport:
    from skewless.validation.replay import replay_batch
    from skewless.validation.replay_report import ReplayReport

    report = ReplayReport()
    replay_batch(report, model, project.views, entry.logged, project.views.ledger.runs())
    return report


def _causes(proof: ReplayReport) -> dict[str, Any]:
    return {
        "by_cause": {cause.value: count for cause, count in proof.findings.by_cause.items()},
        "examples": [asdict(item) for item in proof.findings.examples],
    }
