"""Telling those who wait why they get no answer.

Values outside a model's bounds leave the vector as it is; they are named, or the caller is refused. Where a model
refuses them, a value that the caller sent is the caller's fault: 400, before any work. A feature that was looked up is
not: it is answered as one that is missing, with 503 where the model refuses those too, else flagged.
"""

from __future__ import annotations

import structlog

from skewless.contract.errors import RequestError, SkewlessError, StoreError
from skewless.contract.status import BoolArray
from skewless.contract.vector import Matrix
from skewless.contract.windows.view import WindowView
from skewless.infra.online.marker_history import MarkerStatus
from skewless.infra.packages.served_model import ServedModel
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.scoring_request import ScoringRequest
from skewless.serving.prediction.ticket import Group, Ticket

_log = structlog.get_logger()


def fail(group: Group, error: Exception) -> None:
    """Tell all who wait why there is no answer; what is no error of ours is logged, it is a defect."""
    if not isinstance(error, SkewlessError):
        _log.error("prediction_failed", model=group.model.name, exc_info=error)
        error = SkewlessError("the server", "failed on this request", fix="see its log")
    for ticket in group.tickets:
        refuse(ticket, error)


def refuse(ticket: Ticket, error: SkewlessError) -> None:
    """Tell one; what is not the caller's doing counts against the arm that was to answer."""
    arm = ticket.question.arm
    if ticket.settle(error) and arm is not None and not isinstance(error, RequestError):
        arm.counts.fail()


def too_old(answer: ScoredSlice) -> SkewlessError | None:
    """Return why rows are too old for a caller who set a limit, if the model refuses to score what is missing."""
    if answer.max_age_us is None or answer.model.package.spec.missing != "refuse":
        return None
    stale = answer.stale
    if not stale.any():
        return None
    view = answer.model.plan.all_views[int(stale.any(axis=0).argmax())].name
    return StoreError(
        f"view {view!r}",
        "holds a row that is older than the request accepts",
        value=f"max_feature_age_s {answer.max_age_us / 1e6:g}",
        fix="accept older rows, or publish newer ones",
    )


def refuse_damaged(group: Group, rows: int) -> None:
    """Refuse damaged rows of the store if the model does, and to those who asked together: then each is asked alone.

    Args:
        rows: how many are damaged.

    Raises:
        StoreError: these do not get an answer.
    """
    if rows and (len(group.tickets) > 1 or group.model.package.spec.missing == "refuse"):
        raise StoreError(
            f"model {group.model.name!r}",
            "needs rows that are damaged in the online store",
            value=f"{rows} rows",
            fix="run `skewless parity --repair`, which puts them again from the log",
        )


def incomplete(model: ServedModel, standing: MarkerStatus, t: int) -> StoreError:
    """Return why a model that refuses to score what is missing cannot read its first view that is not to be used.

    Args:
        standing: what the markers said that were read.
        t: when it was asked, microseconds.
    """
    reader, used = model.reader, model.reader.standing(standing, t)
    view = next(
        view for view in model.plan.all_views if not used.lost.isdisjoint((view.hash, *reader.markers_of(view)))
    )
    verb = "`skewless stream`" if isinstance(view, WindowView) else "`skewless materialize`"
    if standing.lost.isdisjoint(reader.markers_of(view)):
        age = (t - standing.watermark(reader.markers_of(view))) // 1_000_000
        return StoreError(
            f"view {view.name!r}",
            f"has not been updated for {age:,} s, longer than its skewless.max_age allows",
            fix=f"start {verb}, or see what holds it up",
        )
    return StoreError(
        f"view {view.name!r}", "is incomplete because the store lost writes", fix=f"run {verb}, which writes them again"
    )


def outside_bounds(group: Group, matrix: Matrix) -> BoolArray | None:
    """Return where values of a group lie outside its model's bounds, as ``BoundsCheck.find_outside``."""
    bounds = group.model.bounds
    if bounds is None:
        return None
    return bounds.find_outside(matrix, None if group.tickets[0].question.columns is None else group.ask)


def refuse_outside(question: ScoringRequest, metrics: Metrics) -> None:
    """Refuse what a caller sent outside the bounds of a model that refuses it.

    Raises:
        RequestError: names row, field, value and bound.
    """
    model = question.model
    if model.bounds is None or model.package.spec.bounds != "refuse":
        return
    columns, vectors = question.columns, question.vectors
    breach = model.bounds.first_field_breach(columns) if columns is not None else None
    if vectors is not None:
        breach = model.bounds.first_vector_breach(vectors)
    if breach is not None:
        metrics.out_of_bounds(model.name, model.version, breach.name).inc()
        raise RequestError(
            f"row {breach.row} field {breach.field!r}",
            "is outside the model's bounds",
            value=breach.value,
            fix=f"send {breach.bound.describe()}",
        )


def refused_value(answer: ScoredSlice) -> StoreError | None:
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
