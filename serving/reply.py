"""Replies and errors in the shape that clients see."""

from __future__ import annotations

import math
from typing import Any

from serving.event_bodies import TooLongError
from serving.events import SOURCE
from serving.predictor import Predictions
from skewless.clock import from_us
from skewless.errors import RequestError, SkewlessError, StoreError
from skewless.status import Status

_HTTP_STATUS = {"request": 400, "store": 503, "package": 503, "stale_plan": 503}
_ABSENT = frozenset({"field 'model'", SOURCE})


def predictions_json(answer: Predictions, *, features: bool) -> dict[str, Any]:
    """Return the reply to a prediction request; features and their reasons where asked for."""
    items: list[dict[str, Any]] = [
        {"id": name, "score": float(score)} for name, score in zip(answer.ids, answer.scores, strict=True)
    ]
    if features:
        items = [item | _explained(answer, i) for i, item in enumerate(items)]
    return {
        "model": answer.model.name,
        "version": answer.model.version,
        "t": from_us(answer.t).isoformat(),
        "t_us": answer.t,
        "log": answer.log,
        "degraded": answer.degraded,
        "predictions": items,
    }


def _explained(answer: Predictions, i: int) -> dict[str, Any]:
    row = answer.vectors.matrix[i].tolist()
    views = {}
    for view, read in answer.reads.items():
        found = bool(read.found[i])
        views[view] = {
            "status": Status(answer.vectors.status[view][i]).name,
            "age_s": (answer.t - int(read.versions.event_ts[i])) / 1e6 if found else None,
            "stale": bool(answer.stale(view)[i]),
        }
    # NaN is not JSON: what the model saw as missing is null here.
    values = {
        label: None if math.isnan(value) else value
        for label, value in zip(answer.model.assembler.labels, row, strict=True)
    }
    return {"features": values, "views": views}


def error_json(error: SkewlessError) -> dict[str, Any]:
    """Return an error in the one shape that all routes use."""
    return {"error": {"message": error.sentence(), **error.as_dict()}}


def http_status(error: SkewlessError) -> int:
    """Return the HTTP status of an error: the caller's fault is 4xx, ours 5xx."""
    if isinstance(error, RequestError) and error.thing in _ABSENT:
        return 404
    if isinstance(error, TooLongError):
        return 413
    return _HTTP_STATUS.get(error.kind, 500)


def retry_after(error: SkewlessError) -> dict[str, str]:
    """Return the header that tells a client when to try again."""
    return {"Retry-After": "1"} if isinstance(error, StoreError) else {}
