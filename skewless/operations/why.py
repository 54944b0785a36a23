"""The explanation of one logged prediction: values and their origin, model, bounds and proof."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from skewless.contract.bounds import Bounds
from skewless.contract.clock import from_us
from skewless.contract.errors import RequestError
from skewless.infra.packages.package import Package
from skewless.infra.packages.served_model import ServedModel, load_model
from skewless.infra.predictions.reader import PredictionEntry, PredictionLog
from skewless.operations.quality import labelled_log
from skewless.validation.explanation import Bounds as Ranges
from skewless.validation.explanation import Explanation, NearestBound, explain, nearest_bound
from skewless.validation.replay import replay_batch
from skewless.validation.replay_report import ReplayReport
from skewless.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class WhyReport:
    """The explanation of one prediction.

    Args:
        facts: columns of the log with one text or number.
        package: of the version that answered.
        transforms: transform names and hashes.
        bound: the bound that the vector breaks, or comes nearest to.
        declared: whether a suite declares the bound; else it is the range of the training data.
        outside: features outside the bound of their suite, each in a sentence.
        outcome: label, business value and the time when they became known; None: not known.
        proof: the replay; None: not requested.
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
            "trace_id": facts["trace_id"],
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


def why(project: Workspace, prediction: str, *, proof: bool = True) -> WhyReport:
    """Return the explanation of one prediction.

    Args:
        proof: replay the prediction too.

    Raises:
        RequestError: the prediction is not in the log.
        PackageError: the package of its version was altered or is missing.
    """
    entry = PredictionLog(project.state, project.connection).find(prediction)
    if entry is None:
        raise RequestError(
            "prediction",
            "is not in the log",
            value=prediction,
            fix="give the id of a reply, or wait until the log is flushed",
        )
    model = load_model(project.store, entry.model_version.model, entry.model_version.version)
    replayed = ReplayReport() if proof else None
    try:
        if replayed is not None:
            replay_batch(replayed, model, project.views, entry.logged)
        bound, declared = _nearest(model, entry)
        transforms = [item.name for item in model.plan.transforms]
        explanation = explain(model, entry)
        return WhyReport(
            prediction=prediction,
            facts=dict(entry.facts),
            explanation=explanation,
            package=model.package,
            transforms=dict(zip(transforms, entry.logged.transform_hashes[0], strict=False)),
            bound=bound,
            declared=declared,
            outside=_outside(model, explanation),
            outcome=_outcome(project, entry),
            proof=replayed,
        )
    finally:
        model.runtime.close()


def _nearest(model: ServedModel, entry: PredictionEntry) -> tuple[NearestBound | None, bool]:
    ranges = _ranges(model)
    values = dict(zip(model.assembler.labels, entry.logged.vectors[0].tolist(), strict=True))
    spreads = {name: high - low for name, (low, high) in ranges.items() if low is not None and high is not None}
    declared = Bounds.from_dict(model.package.bounds).features
    limits = {name: (bound.low, bound.high) for name, bound in declared.items() if name in ranges}
    bound = nearest_bound(limits, values, spreads)
    return (bound, True) if bound else (nearest_bound(ranges, values, spreads), False)


def _outside(model: ServedModel, explanation: Explanation) -> list[str]:
    bounds = Bounds.from_dict(model.package.bounds).features
    return [
        f"{item.feature} = {item.value!r}: {bounds[item.feature].describe()} was declared"
        for item in explanation.features
        if item.feature in bounds and not bounds[item.feature].contains(item.value)
    ]


def _outcome(project: Workspace, entry: PredictionEntry) -> dict[str, Any] | None:
    """Return the known outcome of a prediction."""
    if entry.model_version.model not in {spec.name for spec in project.models}:
        return None
    # A label by entity belongs to the nearest prediction, so neighbouring predictions are read too.
    t, tolerance = int(entry.logged.t[0]), project.applied.model(entry.model_version.model).labels.tolerance
    around = 2 * (tolerance // timedelta(microseconds=1))
    rows = labelled_log(project, entry.model_version.model).read(
        since_us=t - around, until_us=t + around + 1, known_by_us=project.clock.now_us()
    )
    ids: list[str] = rows["id"].to_pylist()  # an expression of Arrow would import pandas
    if entry.logged.ids[0] not in ids:
        return None
    own: dict[str, Any] = (
        rows.select(["label", "value", "known_at"]).slice(ids.index(entry.logged.ids[0]), 1).to_pylist()[0]
    )
    return own if own["known_at"] is not None else None


def _ranges(model: ServedModel) -> Ranges:
    """Return the range of each number in the training data; codes of categories have no order."""
    labels = [label for i, label in enumerate(model.assembler.labels) if i not in model.assembler.categorical]
    features = model.package.profile["features"]
    return {label: (features[label]["min"], features[label]["max"]) for label in labels if label in features}


def _causes(proof: ReplayReport) -> dict[str, Any]:
    return {
        "by_cause": {cause.value: count for cause, count in proof.findings.by_cause.items()},
        "examples": [asdict(item) for item in proof.findings.examples],
    }
