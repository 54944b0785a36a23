"""The explanation of one logged prediction: values and their origin, model, bounds and proof."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from skewless.contract.bounds import Bounds
from skewless.contract.clock import from_us
from skewless.contract.errors import RequestError
from skewless.infra.models.packages.package import Package
from skewless.infra.models.packages.served_model import ServedModel, load_model
from skewless.infra.records.predictions.reader import PredictionEntry
from skewless.infra.records.predictions.search import find_prediction
from skewless.operations.predictions.predictions import find_outcome
from skewless.operations.predictions.similar import find_similar
from skewless.validation.explanation import Bounds as Ranges
from skewless.validation.explanation import Explanation, NearestBound, explain, nearest_bound
from skewless.validation.replay import add_altered, replay_batch
from skewless.validation.replay_report import ReplayReport
from skewless.validation.similar import SimilarPredictions
from skewless.workspace import Workspace

_OUTCOME = ("label", "value", "known_at")


@dataclass(frozen=True, kw_only=True)
class WhyReport:
    """The explanation of one prediction.

    Args:
        facts: columns of the log with one text or number, and ``reasons``.
        package: of the version that answered.
        transforms: transform names and hashes.
        bound: the bound that the vector breaks, or comes nearest to.
        declared: whether a suite declares the bound; else it is the range of the training data.
        outside: features outside the bound of their suite, each in a sentence.
        similar: the nearest predictions of the version.
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
    similar: SimilarPredictions
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
            "decision": self.similar.decision,
            "reasons": facts["reasons"],
            "propensity": facts["propensity"],
            **self.explanation.as_dict(),
            "nearest_bound": self.bound
            and {**asdict(self.bound), "broken": self.bound.broken, "declared": self.declared},
            "outside_bounds": self.outside,
            "similar": self.similar.as_dict(),
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
    entry = find_prediction(project.state, project.connection, prediction).entry
    if entry is None:
        raise RequestError(
            "prediction",
            "is not in the log",
            value=prediction,
            fix="give the id of a reply, or wait until the log is flushed",
        )
    with load_model(project.store, entry.model_version.model, entry.model_version.version) as model:
        bound, declared = find_bound(model, entry)
        transforms = [item.name for item in model.plan.transforms]
        explanation, outcome = explain(model, entry), find_outcome(project, entry)
        return WhyReport(
            prediction=prediction,
            facts={**entry.facts, "reasons": list(entry.logged.reasons[0] or ())},
            explanation=explanation,
            package=model.package,
            transforms=dict(zip(transforms, entry.logged.transform_hashes[0], strict=False)),
            bound=bound,
            declared=declared,
            outside=find_outside(model, explanation),
            similar=find_similar(project, model, entry),
            outcome=None if outcome is None else {name: getattr(outcome, name) for name in _OUTCOME},
            proof=prove(project, model, entry) if proof else None,
        )


def prove(project: Workspace, model: ServedModel, entry: PredictionEntry) -> ReplayReport:
    """Return the replay of one prediction, without its comparison with training rows.

    Raises:
        StoreError: a log file is corrupt.
    """
    report = ReplayReport()
    if entry.is_intact:
        replay_batch(report, model, project.views, entry.logged, modes=())
    else:
        add_altered(report, entry.logged.ids[0])
    return report


def find_bound(model: ServedModel, entry: PredictionEntry) -> tuple[NearestBound | None, bool]:
    """Return the bound that the vector breaks, or comes nearest to, and whether a suite declares it.

    Without declared bounds it is one of the ranges of the training data.
    """
    ranges = _ranges(model)
    values = dict(zip(model.assembler.labels, entry.logged.vectors[0].tolist(), strict=True))
    spreads = {name: high - low for name, (low, high) in ranges.items() if low is not None and high is not None}
    declared = Bounds.from_dict(model.package.bounds).features
    limits = {name: (bound.low, bound.high) for name, bound in declared.items() if name in ranges}
    bound = nearest_bound(limits, values, spreads)
    return (bound, True) if bound else (nearest_bound(ranges, values, spreads), False)


def find_outside(model: ServedModel, explanation: Explanation) -> list[str]:
    """Return the features outside the bound of their suite, each in a sentence."""
    bounds = Bounds.from_dict(model.package.bounds).features
    return [
        f"{item.feature} = {item.value!r}: {bounds[item.feature].describe()} was declared"
        for item in explanation.features
        if item.feature in bounds and not bounds[item.feature].contains(item.value)
    ]


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
