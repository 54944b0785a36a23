"""Errors of predictions: why a request is rejected or has no score.

A value outside the model's bounds never changes the vector: the reply names it, or the request is rejected. A rejected
value that the caller sent is a 400, before any work. A rejected value of a stored feature counts as missing: 503 if the
model rejects missing features too, otherwise the reply flags it.
"""

from __future__ import annotations

from skewless.contract.errors import RequestError, SkewlessError, StoreError
from skewless.contract.readable import duration_text
from skewless.contract.windows.view import WindowView
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.online.marker_history import MarkerStatus
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.group import Group
from skewless.serving.prediction.routing import ScoringRequest
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.ticket import Ticket

_log = EventLogger()


def fail_group(group: Group, error: Exception) -> None:
    """Reply to all tickets of a group with an error; an unexpected exception is logged as a defect."""
    if not isinstance(error, SkewlessError):
        traces = {"trace_id": ",".join(trace.trace_id for trace in group.traces)} if group.traces else {}
        ids = [ticket.request.request_id.decode("ascii") for ticket in group.tickets if ticket.request.request_id]
        _log.error("prediction_failed", model=group.model.name, request_ids=ids, **traces, exc_info=error)
        error = SkewlessError("the server", "failed on this request", fix="see its log")
    for ticket in group.tickets:
        fail_ticket(ticket, error)


def fail_ticket(ticket: Ticket, error: SkewlessError) -> None:
    """Reply to a ticket with an error; an error that its caller did not cause counts as a failure of its arm."""
    arm = ticket.request.arm
    if ticket.settle(error) and arm is not None and not isinstance(error, RequestError):
        arm.counts.count_failure()


def age_limit_error(scored_slice: ScoredSlice) -> SkewlessError | None:
    """Return an error if a row is older than the request accepts and the model rejects missing features."""
    if scored_slice.max_age_us is None or scored_slice.model.package.spec.missing != "refuse":
        return None
    stale = scored_slice.stale
    if not stale.any():
        return None
    view = scored_slice.model.plan.all_views[int(stale.any(axis=0).argmax())].name
    return StoreError(
        f"view {view!r}",
        "has a row that is older than the request accepts",
        value=f"max_feature_age_s {scored_slice.max_age_us / 1e6:g}",
        fix="raise max_feature_age_s, or update the view",
    )


def reject_corrupt_rows(group: Group, rows: int) -> None:
    """Reject rows that are corrupt in the store, if the model rejects missing features or the group has several.

    A group with several tickets is then scored ticket by ticket, so that the others still receive a score.

    Args:
        rows: number of corrupt rows.

    Raises:
        StoreError: the group cannot be scored.
        StoreError: these do not get an answer.
    """
    if rows and (len(group.tickets) > 1 or group.model.package.spec.missing == "refuse"):
        raise StoreError(
            f"model {group.model.name!r}",
            "needs rows that are corrupt in the online store",
            value=f"{rows} rows",
            fix="run `skewless parity --repair`, which rewrites them from the log",
        )


def incomplete_view_error(model: ServedModel, marker_status: MarkerStatus, t: int) -> StoreError:
    """Return why a model that rejects missing features cannot be scored: its first incomplete or outdated view.

    Args:
        marker_status: status of the markers that were read.
        t: evaluation time, microseconds.
    """
    reader, usable = model.reader, model.reader.check_ages(marker_status, t)
    view = next(
        view for view in model.plan.all_views if not usable.lost.isdisjoint((view.hash, *reader.markers_of(view)))
    )
    command = "`skewless stream`" if isinstance(view, WindowView) else "`skewless materialize`"
    if marker_status.lost.isdisjoint(reader.markers_of(view)):
        age = duration_text((t - marker_status.watermark(reader.markers_of(view))) / 1e6)
        return StoreError(
            f"view {view.name!r}",
            f"has not been updated for {age}, longer than its skewless.max_age allows",
            fix=f"run {command}, or find out why it stopped",
        )
    return StoreError(
        f"view {view.name!r}", "is incomplete because the store lost writes", fix=f"run {command}, which rewrites them"
    )


def reject_out_of_bounds(request: ScoringRequest, metrics: Metrics) -> None:
    """Reject values of a request that are outside the bounds, if the model rejects them.

    Raises:
        RequestError: names the row, field, value and bound.
    """
    model = request.model
    if model.bounds is None or model.package.spec.bounds != "refuse":
        return
    columns, vectors = request.columns, request.vectors
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


def stored_bounds_error(scored_slice: ScoredSlice) -> StoreError | None:
    """Return an error if a stored feature is outside the bounds and the model rejects both it and missing features."""
    spec, bounds, outside = scored_slice.model.package.spec, scored_slice.model.bounds, scored_slice.scored.outside
    if bounds is None or outside is None or spec.bounds != "refuse" or spec.missing != "refuse":
        return None
    is_outside = outside[scored_slice.start : scored_slice.stop].any(axis=0)
    if not is_outside.any():
        return None
    return StoreError(
        f"feature {bounds.names[int(is_outside.argmax())]!r}",
        "is outside the model's bounds",
        fix="correct the rows of its view, or the suite with its bounds",
    )
