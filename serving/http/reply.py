"""Replies and errors in the shape that clients see."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson
from starlette.responses import Response

from skewless.contract.clock import from_us
from skewless.contract.errors import BusyError, RateError, RequestError, SkewlessError, StoreError
from skewless.contract.render import hide_paths, json_number
from skewless.contract.status import Status
from skewless.infra.host.redaction import redact
from skewless.serving.events import SOURCE
from skewless.serving.http.wire_limits import BodyTooLongError
from skewless.serving.prediction.admission import busy_error
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.split_request import MergedSlices

_HTTP_STATUS = {"request": 400, "store": 503, "package": 503, "stale_plan": 503, "busy": 503, "deadline": 504}
_HTTP_STATUS |= {"conflict": 409, "access": 401, "scope": 403, "rate": 429}
_OURS = frozenset({"error", "definition", "stale_plan", "source", "gate", "store", "package", "conflict", "place"})
_ONE_SENTENCE = "/v2/"  # the Open Inference Protocol
_ABSENT = frozenset({"field 'model'", SOURCE})


def predictions_json(answer: ScoredSlice, *, features: bool) -> dict[str, Any]:
    """Return the reply to a prediction request; features and their reasons where asked for."""
    items = _outcomes(answer)
    decisions = answer.decisions
    if decisions is not None:
        for item, decision in zip(items, decisions, strict=True):
            item["decision"] = decision
    outside = answer.out_of_bounds
    if outside is not None:
        for item, names in zip(items, outside, strict=True):
            if names:
                item["out_of_bounds"] = names
    if features:
        for item, more in zip(items, _explained(answer), strict=True):
            item.update(more)
    if answer.contributions is not None:
        for item, row in zip(items, answer.contributions.tolist(), strict=True):
            item["contributions"] = _named(answer, row)
    return {
        "model": answer.model.name,
        "version": answer.model.version,
        "t": _iso(answer.t),
        "t_us": answer.t,
        "log": answer.log,
        "degraded": answer.degraded,
        "predictions": items,
    }


def mixed_json(mixed: MergedSlices, *, features: bool) -> dict[str, Any]:
    """Return the reply where several versions answered: each row names its own, and its time where they differ."""
    items: list[dict[str, Any]] = [{}] * mixed.n
    for answer, rows in zip(mixed.parts, mixed.rows, strict=True):
        more = {"version": answer.model.version} | ({"t_us": answer.t} if answer.t != mixed.t else {})
        for item, row in zip(predictions_json(answer, features=features)["predictions"], rows, strict=True):
            items[row] = item | more
    first = mixed.parts[0]
    return {
        "model": first.model.name,
        "version": None,
        "t": _iso(mixed.t),
        "t_us": mixed.t,
        "log": "required" if all(part.log == "required" for part in mixed.parts) else "best_effort",
        "degraded": mixed.degraded,
        "predictions": items,
    }


def plain_reply(answer: ScoredSlice) -> bytes | None:
    """Return the JSON of the reply where nothing but scores was asked for; None: use ``predictions_json``.

    A float is written as the shortest text that reads back as the same bits.
    """
    scored = answer.scored
    if scored.scores.ndim != 1 or scored.contributions is not None or scored.outside is not None:
        return None
    if scored.model.package.spec.decisions:
        return None
    shown = [
        f'{{"id":"{scored.ids[i]}","score":{score!r}}}'
        for i, score in enumerate(answer.scores.tolist(), answer.start)
        if math.isfinite(score)
    ]
    if len(shown) < answer.n:
        return None
    head = (
        f'{{"model":"{scored.model.name}","version":"{scored.model.version}","t":"{_iso(scored.t)}","t_us":{scored.t},'
        f'"log":"{answer.log}","degraded":{"true" if scored.degraded else "false"},"predictions":['
    )
    return f"{head}{','.join(shown)}]}}".encode()


@lru_cache(maxsize=16)  # of a batch, all are the same
def _iso(t: int) -> str:
    return from_us(t).isoformat()


def _outcomes(answer: ScoredSlice) -> list[dict[str, Any]]:
    """Return id and score of each row: of several outputs all are given, and the greatest is the score."""
    scores = answer.scores
    if scores.ndim == 1:
        return [
            {"id": name, "score": json_number(score)} for name, score in zip(answer.ids, scores.tolist(), strict=True)
        ]
    return [
        {"id": name, "score": json_number(max(row)), "scores": [json_number(score) for score in row]}
        for name, row in zip(answer.ids, scores.tolist(), strict=True)
    ]


def _explained(answer: ScoredSlice) -> Iterator[dict[str, Any]]:
    labels = answer.model.assembler.labels
    views = [view.name for view in answer.model.plan.all_views] if answer.status.shape[1] else []
    rows = zip(
        answer.matrix.tolist(), answer.status.tolist(), answer.ages_s.tolist(), answer.stale.tolist(), strict=True
    )
    behind = [_finite(age) for age in answer.scored.watermark_ages_s.tolist()]
    for values, status, ages, stale in rows:
        yield {
            # NaN is not JSON: what the model saw as missing is null here.
            "features": {name: json_number(value) for name, value in zip(labels, values, strict=True)},
            "views": {
                view: {"status": Status(code).name, "age_s": _finite(age), "stale": late, "watermark_age_s": lag}
                for view, code, age, late, lag in zip(views, status, ages, stale, behind, strict=True)
            },
        }


def _named(answer: ScoredSlice, row: list[Any]) -> dict[str, Any]:
    """Return contributions by feature; of several outputs a list for each."""
    columns = zip(*row, strict=True) if isinstance(row[0], list) else row
    return dict(zip((*answer.model.assembler.labels, "bias"), columns, strict=True))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def error_json(error: SkewlessError, path: str) -> dict[str, Any]:
    """Return an error in the shape of a path's routes: in parts, or one sentence where a protocol says so.

    What a client sent is shown to it, but for API keys and passwords: replies end up in logs of gateways and clients.
    Paths of the server's file system are named by their last part alone.

    >>> error_json(RequestError("input 'x'", "is missing", fix="send it"), "/v2/models/fraud/infer")
    {'error': "input 'x': is missing. Fix: send it"}
    """
    hidden = error.kind in _OURS
    sentence = hide_paths(error.sentence()) if hidden else error.sentence()
    if f"{path}/".startswith(_ONE_SENTENCE):
        return {"error": redact(sentence)}
    parts = {name: redact(part) if isinstance(part, str) else part for name, part in error.as_dict().items()}
    if hidden:
        parts = {name: hide_paths(part) if isinstance(part, str) else part for name, part in parts.items()}
    return {"error": {"message": redact(sentence), **parts}}


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a reply of the application."""
    return Response(orjson.dumps(body), status, headers, "application/json")


@lru_cache(maxsize=2)
def _busy_body(path: str) -> bytes:
    return orjson.dumps(error_json(busy_error(), path))


def busy_body(path: str) -> bytes:
    """Return the body for who is refused since there is no room: made once, so that refusals cost next to nothing."""
    return _busy_body(_ONE_SENTENCE if path.startswith(_ONE_SENTENCE) else "/")


def http_status(error: SkewlessError) -> int:
    """Return the HTTP status of an error: the caller's fault is 4xx, ours 5xx."""
    if isinstance(error, RequestError) and error.thing in _ABSENT:
        return 404
    if isinstance(error, BodyTooLongError):
        return 413
    return _HTTP_STATUS.get(error.kind, 500)


def retry_after(error: SkewlessError) -> dict[str, str]:
    """Return the header that tells a client when to try again, or with what."""
    if error.kind == "access":
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, RateError):
        return {"Retry-After": str(error.wait_s)}
    return {"Retry-After": "1"} if isinstance(error, StoreError | BusyError) else {}
