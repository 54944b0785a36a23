"""The latest predictions: which one do you mean?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from skewless.contract.errors import ScopeError
from skewless.contract.plain_record import PlainRecord
from skewless.infra.records.predictions.search import PredictionList
from skewless.operations.predictions.predictions import list_of_models
from skewless.project import Project
from skewless_control_room.page import Page, Part, Query, read_part

SHOWN = 50
_MOST_TEXT = 300


@dataclass(frozen=True, kw_only=True)
class Predictions(PlainRecord):
    """The answer.

    Args:
        model: only of this model; empty: of all that the reader may see.
        models: names of the models that the reader may choose.
        predictions: the latest first.
    """

    model: str
    models: Part[list[str]]
    predictions: Part[PredictionList]


def read_predictions(project: Project, query: Query) -> Predictions:
    """Return the latest predictions."""
    model, place = query.text("model"), query.text("page") or None
    models = allowed_models(query, model)
    return Predictions(
        model=model,
        models=read_part(lambda: _list_models(project, query)),
        predictions=read_part(lambda: cut_inputs(list_of_models(project, models, limit=SHOWN, page=place))),
    )


def allowed_models(query: Query, model: str) -> Collection[str] | None:
    """Return the models whose predictions may be shown; None: all.

    Args:
        model: that the reader asks for; empty: all.

    Raises:
        ScopeError: the reader may not see the model.
    """
    if not model:
        return query.models
    if query.models is not None and model not in query.models:
        raise ScopeError(f"model {model!r}", "is not one of yours", fix="sign in with a key for it")
    return {model}


def cut_inputs(found: PredictionList) -> PredictionList:
    """Return a list with short inputs: those of a caller may have megabytes."""
    return replace(found, rows=[replace(row, inputs=row.inputs[:_MOST_TEXT]) for row in found.rows])


def _list_models(project: Project, query: Query) -> list[str]:
    names = {*project.packages.list_models()} | {spec.name for spec in project.models}
    return sorted(names if query.models is None else names & query.models)


PAGE = Page(
    path="/predictions",
    question="Which predictions were made last?",
    template="predictions.html",
    is_personal=True,
    read=read_predictions,
    menu="Predictions",
)
