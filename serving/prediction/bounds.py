"""What becomes of values outside a model's bounds: the vector stays as it is; they are named, or the caller is refused.

Where a model refuses them, a value that the caller sent is the caller's fault: 400, before any work. A feature that
was looked up is not: it is answered as one that is missing, with 503 where the model refuses those too, else flagged.
"""

from __future__ import annotations

from skewless.contract.errors import RequestError, StoreError
from skewless.contract.status import BoolArray
from skewless.contract.vector import Matrix
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.answer import Answer
from skewless.serving.prediction.question import Question
from skewless.serving.prediction.ticket import Group


def outside_bounds(group: Group, matrix: Matrix) -> BoolArray | None:
    """Return where values of a group lie outside its model's bounds, as ``BoundsCheck.outside``."""
    bounds = group.model.bounds
    if bounds is None:
        return None
    return bounds.outside(matrix, None if group.tickets[0].question.columns is None else group.ask)


def refuse_outside(question: Question, metrics: Metrics) -> None:
    """Refuse what a caller sent outside the bounds of a model that refuses it.

    Raises:
        RequestError: names row, field, value and bound.
    """
    model = question.model
    if model.bounds is None or model.package.spec.bounds != "refuse":
        return
    columns, vectors = question.columns, question.vectors
    breach = model.bounds.first_sent(columns) if columns is not None else None
    if vectors is not None:
        breach = model.bounds.first_number(vectors)
    if breach is not None:
        metrics.out_of_bounds(model.name, model.version, breach.name).inc()
        raise RequestError(
            f"row {breach.row} field {breach.field!r}",
            "is outside the model's bounds",
            value=breach.value,
            fix=f"send {breach.bound.sentence()}",
        )


def refused_value(answer: Answer) -> StoreError | None:
    """Return why a request gets no answer: a looked-up value is outside, and its model takes none that is missing."""
    spec, bounds, outside = answer.model.package.spec, answer.model.bounds, answer.scored.outside
    if bounds is None or outside is None or spec.bounds != "refuse" or spec.missing != "refuse":
        return None
    broken = outside[answer.start : answer.stop].any(axis=0)
    if not broken.any():
        return None
    return StoreError(
        f"feature {bounds.names[int(broken.argmax())]!r}",
        "is outside the model's bounds",
        fix="correct the rows of its view, or the suite that bounds it",
    )
