"""One prediction: why did it come out so?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skewless.contract.errors import RequestError, ScopeError
from skewless.contract.plain_record import PlainRecord
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.records.outcomes.labelled_log import FoundOutcome
from skewless.infra.records.predictions.reader import PredictionEntry
from skewless.infra.records.predictions.search import PredictionSearch, find_prediction
from skewless.operations.predictions.predictions import find_outcome
from skewless.operations.predictions.similar import find_similar
from skewless.operations.predictions.why import find_bound, find_outside, prove
from skewless.project import Project
from skewless.validation.explanation import (
    ExplainedFeature,
    ExplainedRead,
    Explanation,
    explain,
    explain_reads,
)
from skewless.validation.similar import SimilarPredictions
from skewless_control_room.page import MOST_TEXT, Known, Page, Part, Query, Unknown, read_part

# An id without a time, or one that is far from its time in the log, is searched in this many predictions.
MOST_SEARCHED, _MOST_SEGMENTS = 1_000_000, 400
_MOST_FEATURES = 300
_MOST_BARS = 20
_MOST_TEXT = 2_000


@dataclass(frozen=True, kw_only=True)
class Facts(PlainRecord):
    """The columns of a prediction in the log.

    Args:
        role: champion, challenger or shadow.
        policy: number of the traffic policy that gave the role; None: there was none.
        reasons, propensity: of its action; None: the model does not explore.
        t_us, asked_us: time of evaluation, and the clock at the request, UTC microseconds.
        trace_id: of the trace of its request; None: it was not traced.
        source: whether the caller sent keys, or a vector.
        inputs: of the caller, JSON text, the first 2,000 characters.
        keys: join key -> value as text, for the page of the entity; without values that are too long for an address.
        runtime, plan: the runtime that scored, and the hash of the plan.
        reads: the row of each view.
    """

    id: str
    model: str
    version: str
    score: float
    role: str
    policy: int | None
    reasons: list[str]
    propensity: float | None
    t_us: int
    asked_us: int
    trace_id: str | None
    source: str
    inputs: str
    keys: Mapping[str, str]
    runtime: str
    plan: str
    reads: list[ExplainedRead]


@dataclass(frozen=True, kw_only=True)
class Explained(PlainRecord):
    """The explanation of a prediction by the package of its version.

    Args:
        margin, bias: of the model; None: it has no contributions.
        features: the largest contributions first.
        hidden: number of further features.
        reads: the read of each view, by its name.
        bars: names and contributions, for the plot.
        caption: of the plot.
        bound: the bound that the vector breaks, or comes nearest to; None: there is none.
        declared: whether a suite declares the bound; else it is the range of the training data.
        outside: features outside the bound of their suite.
        package: digest.
        trained_at: ISO 8601.
        dataset: fingerprint of the training data.
    """

    margin: float
    bias: float | None
    features: list[ExplainedFeature]
    hidden: int
    reads: Mapping[str, ExplainedRead]
    bars: list[tuple[str, float | None]]
    caption: str
    bound: str | None
    declared: bool
    outside: list[str]
    package: str
    trained_at: str | None
    dataset: str | None


@dataclass(frozen=True, kw_only=True)
class ReplayVerdict(PlainRecord):
    """The replay of this prediction.

    Args:
        state: ``proven``, ``different``, or ``erased``: it cannot be proven any more.
        lines: the report.
    """

    state: str
    lines: list[str]


@dataclass(frozen=True, kw_only=True)
class PredictionAnswer(PlainRecord):
    """The answer.

    Args:
        facts: what the log has.
        explained, proof, similar: need the package of the version.
        outcome: None: it is not known.
    """

    facts: Facts
    explained: Part[Explained]
    proof: Part[ReplayVerdict]
    similar: Part[SimilarPredictions]
    outcome: Part[FoundOutcome | None]


@dataclass(frozen=True, kw_only=True)
class Missing(PlainRecord):
    """A prediction that was not found.

    Args:
        looked: number of predictions among which it was searched.
        total: number of predictions in the log.
    """

    id: str
    looked: int
    total: int


@dataclass(frozen=True, kw_only=True)
class PredictionPage(PlainRecord):
    """The answer, or where it was searched."""

    answer: Part[PredictionAnswer | Missing]


def read_prediction(project: Project, query: Query) -> PredictionPage:
    """Return why a prediction came out so.

    Raises:
        ScopeError: it is of a model that the reader may not see.
    """
    name = query.path["prediction"]
    if len(name) > _MOST_TEXT:
        raise RequestError("prediction", "has an id that is too long", value=name, fix="give the id of a reply")
    most = (None, None) if query.choice("look", ("near", "all")) == "all" else (MOST_SEARCHED, _MOST_SEGMENTS)
    found = read_part(
        lambda: find_prediction(project.state, project.connection, name, most_rows=most[0], most_segments=most[1])
    )
    if isinstance(found, Unknown):
        return PredictionPage(answer=found)
    search: PredictionSearch = found.value
    entry = search.entry
    if entry is None:
        return PredictionPage(answer=Known(value=Missing(id=name, looked=search.looked, total=search.total)))
    if query.models is not None and entry.model_version.model not in query.models:
        raise ScopeError(f"prediction {name!r}", "is of a model that is not one of yours", fix="use a key for it")
    return PredictionPage(answer=Known(value=_explain(project, entry)))


def _explain(project: Project, entry: PredictionEntry) -> PredictionAnswer:
    version = entry.model_version
    model = read_part(lambda: project.opened_models.get(version.model, version.version))
    facts, outcome = _facts(project, entry), read_part(lambda: find_outcome(project, entry))
    if isinstance(model, Unknown):
        return PredictionAnswer(facts=facts, explained=model, proof=model, similar=model, outcome=outcome)
    opened = model.value
    return PredictionAnswer(
        facts=facts,
        explained=read_part(lambda: _explained(opened, entry)),
        proof=read_part(lambda: _prove(project, opened, entry)),
        similar=read_part(lambda: find_similar(project, opened, entry)),
        outcome=outcome,
    )


def _facts(project: Project, entry: PredictionEntry) -> Facts:
    facts: Mapping[str, Any] = entry.facts
    return Facts(
        id=facts["id"],
        model=facts["model"],
        version=facts["version"],
        score=facts["score"],
        role=facts["role"],
        policy=facts["policy"],
        reasons=list(entry.logged.reasons[0] or ()),
        propensity=facts["propensity"],
        t_us=facts["t"],
        asked_us=facts["asked_at"],
        trace_id=facts["trace_id"],
        source=facts["source"],
        inputs=facts["inputs"][:_MOST_TEXT],
        keys=_keys(project, facts["inputs"]),
        runtime=facts["runtime_id"],
        plan=facts["plan_hash"],
        reads=explain_reads(entry),
    )


def _keys(project: Project, inputs: str) -> dict[str, str]:
    """Return the join keys among the inputs that fit into an address; none without a plan."""
    names = read_part(lambda: [column.name for column in project.needed.plan.join_keys])
    given = json.loads(inputs)
    if isinstance(names, Unknown) or not isinstance(given, dict):
        return {}
    keys = {name: str(given[name]) for name in names.value if given.get(name) is not None}
    return {name: value for name, value in keys.items() if len(value) <= MOST_TEXT}


def _explained(model: ServedModel, entry: PredictionEntry) -> Explained:
    explanation, (bound, declared) = explain(model, entry), find_bound(model, entry)
    package = model.package
    return Explained(
        margin=explanation.margin,
        bias=explanation.bias,
        features=explanation.features[:_MOST_FEATURES],
        hidden=max(0, len(explanation.features) - _MOST_FEATURES),
        reads={read.view: read for read in explanation.reads},
        bars=[(item.feature, item.contribution) for item in explanation.features[:_MOST_BARS]],
        caption=_caption(explanation),
        bound=bound.line() if bound else None,
        declared=declared,
        outside=find_outside(model, explanation),
        package=package.digest,
        trained_at=package.about.get("trained_at"),
        dataset=package.fingerprint.get("dataset"),
    )


def _caption(explanation: Explanation) -> str:
    if explanation.bias is None:
        return ""
    shown, parts = (
        min(_MOST_BARS, len(explanation.features)),
        [item.contribution or 0.0 for item in explanation.features],
    )
    rest = sum(parts[shown:])
    further = f" The bars are the {shown} largest; the others add {rest:+.6g}." if parts[shown:] else ""
    total = f"bias {explanation.bias:.6g} and contributions {sum(parts):+.6g} make the margin {explanation.margin:.6g}"
    return f"Contribution to the margin: {total}.{further}"


def _prove(project: Project, model: ServedModel, entry: PredictionEntry) -> ReplayVerdict:
    report = prove(project, model, entry)
    state = "erased" if report.erased else "proven" if report.ok else "different"
    # The last line is about reads during a run, of many predictions.
    return ReplayVerdict(state=state, lines=report.lines())


PAGE = Page(
    path="/predictions/{prediction}",
    question="Why did this come out so?",
    template="prediction.html",
    is_personal=True,
    read=read_prediction,
)
