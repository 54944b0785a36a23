"""Replies and errors in the format of the HTTP API."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from starlette.responses import Response

from skewless.contract.clock import from_us
from skewless.contract.errors import BusyError, RateError, RequestError, SkewlessError, StoreError
from skewless.contract.render import hide_paths, json_number
from skewless.contract.status import Status
from skewless.infra.platform.telemetry.redaction import redact
from skewless.serving.events import SOURCE
from skewless.serving.http.wire_limits import BodyTooLongError
from skewless.serving.prediction.admission import busy_error
from skewless.serving.prediction.routing import MergedSlices
from skewless.serving.prediction.scored_batch import ScoredBatch, ScoredSlice

_HTTP_STATUS = {"request": 400, "store": 503, "package": 503, "stale_plan": 503, "busy": 503, "deadline": 504}
_HTTP_STATUS |= {"conflict": 409, "access": 401, "scope": 403, "rate": 429}
_SERVER_KINDS = frozenset(
    {"error", "definition", "stale_plan", "source", "gate", "store", "package", "conflict", "place"}
)
_OIP_PREFIX = "/v2/"  # the Open Inference Protocol, a plug-in: its clients expect errors as one sentence
_NOT_FOUND = frozenset({"field 'model'", SOURCE})


def predictions_json(result: ScoredSlice | MergedSlices, *, features: bool) -> dict[str, Any]:
    """Return the reply to a prediction request, with features and their status if requested.

    If several versions served it, each row has its version, and its time if times differ.
    """
    if isinstance(result, MergedSlices):
        parts, version, items = result.parts, None, _merge_items(result, features=features)
    else:
        parts, version, items = (result,), result.model.version, _row_items(result, features=features)
    return {
        "model": parts[0].model.name,
        "version": version,
        "t": _iso(result.t),
        "t_us": result.t,
        "log": "required" if all(part.log == "required" for part in parts) else "best_effort",
        "degraded": result.degraded,
        "predictions": items,
    }


def _merge_items(merged: MergedSlices, *, features: bool) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = [{}] * merged.n
    for part, rows in zip(merged.parts, merged.rows, strict=True):
        extra = {"version": part.model.version} | ({"t_us": part.t} if part.t != merged.t else {})
        for item, row in zip(_row_items(part, features=features), rows, strict=True):
            items[row] = item | extra
    return items


def _row_items(scored_slice: ScoredSlice, *, features: bool) -> list[dict[str, Any]]:
    items = _score_items(scored_slice)
    _add_decisions(items, scored_slice)
    bound_names = scored_slice.out_of_bounds
    if bound_names is not None:
        for item, names in zip(items, bound_names, strict=True):
            if names:
                item["out_of_bounds"] = names
    if features:
        for item, extra in zip(items, _feature_items(scored_slice), strict=True):
            item.update(extra)
    for name in scored_slice.scored.extras:
        values = scored_slice.extra_values(name)
        for item, row in zip(items, [] if values is None else values.tolist(), strict=True):
            item[name] = _contributions_by_feature(scored_slice, row) if name == "contributions" else row
    return items


def _add_decisions(items: list[dict[str, Any]], scored_slice: ScoredSlice) -> None:
    decisions, explored = scored_slice.decisions, scored_slice.explored
    for item, decision in zip(items, decisions or [], strict=False):
        item["decision"] = decision
    for item, reasons in zip(items, scored_slice.reasons or [], strict=False):
        item["reasons"] = reasons
    for item, explores in zip(items, explored or [], strict=False):
        if explores:
            item["explored"] = True


def scores_json(scored_slice: ScoredSlice) -> bytes | None:
    """Return the JSON of a reply that contains only scores; None: use ``predictions_json``.

    A float is written as the shortest text that parses to the same bits. Formatting the text directly is several times
    faster than building objects for a JSON encoder, and nearly all replies have this form.
    """
    scored, start, stop, _, part = scored_slice
    # Rendered once for all requests of the batch.
    texts = scored.texts
    if texts is None:
        texts = scored.texts = _score_texts(scored)
    if not texts:
        return None
    first = start + 1 + len(scored.others)
    rows = texts[first] if stop - start == 1 else ",".join(texts[first : first + stop - start])
    return f"{texts[part]}{rows}]}}".encode()


def _score_texts(scored: ScoredBatch) -> Sequence[str]:
    """Return the head of the reply of each version of a batch, then each row; empty: some have more than scores."""
    if scored.scores.ndim != 1 or scored.extras or scored.outside is not None or scored.model.package.spec.actions:
        return ()
    scores = scored.scores.tolist()
    if not all(map(math.isfinite, scores)):
        return ()
    name, log = scored.model.name, scored.model.package.spec.log
    rest = (
        f'"t":"{_iso(scored.t)}","t_us":{scored.t},'
        f'"log":"{log}","degraded":{"true" if scored.degraded else "false"},"predictions":['
    )
    return [
        *[f'{{"model":"{name}","version":"{model.version}",{rest}' for model in (scored.model, *scored.others)],
        *[f'{{"id":"{row}","score":{score!r}}}' for row, score in zip(scored.ids, scores, strict=True)],
    ]


@lru_cache(maxsize=16)  # all rows of a batch have the same time
def _iso(t: int) -> str:
    return from_us(t).isoformat()


def _score_items(scored_slice: ScoredSlice) -> list[dict[str, Any]]:
    """Return id and score of each row; a model with several outputs returns all, and the largest is the score."""
    scores = scored_slice.scores
    if scores.ndim == 1:
        return [
            {"id": name, "score": json_number(score)}
            for name, score in zip(scored_slice.ids, scores.tolist(), strict=True)
        ]
    return [
        {"id": name, "score": json_number(max(row)), "scores": [json_number(score) for score in row]}
        for name, row in zip(scored_slice.ids, scores.tolist(), strict=True)
    ]


def _feature_items(scored_slice: ScoredSlice) -> Iterator[dict[str, Any]]:
    labels = scored_slice.model.assembler.labels
    views = [view.name for view in scored_slice.model.plan.all_views] if scored_slice.status.shape[1] else []
    rows = zip(
        scored_slice.matrix.tolist(),
        scored_slice.status.tolist(),
        scored_slice.ages_s.tolist(),
        scored_slice.stale.tolist(),
        strict=True,
    )
    watermark_ages = [_null_if_infinite(age) for age in scored_slice.scored.watermark_ages_s.tolist()]
    for values, status, ages, stale in rows:
        yield {
            # NaN is not JSON: a missing feature is null.
            "features": {name: json_number(value) for name, value in zip(labels, values, strict=True)},
            "views": {
                view: {
                    "status": Status(code).name,
                    "age_s": _null_if_infinite(age),
                    "stale": is_stale,
                    "watermark_age_s": watermark_age,
                }
                for view, code, age, is_stale, watermark_age in zip(
                    views, status, ages, stale, watermark_ages, strict=True
                )
            },
        }


def _contributions_by_feature(scored_slice: ScoredSlice, row: list[Any]) -> dict[str, Any]:
    """Return contributions by feature; for several outputs each is a list."""
    columns = zip(*row, strict=True) if isinstance(row[0], list) else row
    return dict(zip((*scored_slice.model.assembler.labels, "bias"), columns, strict=True))


def _null_if_infinite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def error_json(error: SkewlessError, path: str) -> dict[str, Any]:
    """Return an error in the format of a path: in parts, or as one sentence in the Open Inference Protocol.

    The error shows the client's own values, but no API keys or passwords, since logs of gateways and clients record
    replies. Of paths in the server's file system it shows only the last part.
    >>> error_json(RequestError("input 'x'", "is missing", fix="send it"), "/v2/models/fraud/infer")
    {'error': "input 'x': is missing. Fix: send it"}
    """
    hides_paths = error.kind in _SERVER_KINDS
    sentence = hide_paths(error.sentence()) if hides_paths else error.sentence()
    if is_oip_path(path):
        return {"error": redact(sentence)}
    parts = {name: redact(part) if isinstance(part, str) else part for name, part in error.as_dict().items()}
    if hides_paths:
        parts = {name: hide_paths(part) if isinstance(part, str) else part for name, part in parts.items()}
    return {"error": {"message": redact(sentence), **parts}}


def is_oip_path(path: str) -> bool:
    """Return whether a path belongs to the Open Inference Protocol."""
    return f"{path}/".startswith(_OIP_PREFIX)


def error_response(error: SkewlessError, path: str) -> Response:
    """Return the reply for an error, in the format of a path."""
    return json_response(error_json(error, path), http_status(error), retry_after(error))


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON reply."""
    return Response(orjson.dumps(body), status, headers, "application/json")


@lru_cache(maxsize=2)
def _busy_body(path: str) -> bytes:
    return orjson.dumps(error_json(busy_error(), path))


def busy_body(path: str) -> bytes:
    """Return the reply body for requests without room, encoded once: under overload, rejections must be cheap."""
    return _busy_body(_OIP_PREFIX if path.startswith(_OIP_PREFIX) else "/")


def http_status(error: SkewlessError) -> int:
    """Return the HTTP status of an error: 4xx if the client caused it, otherwise 5xx."""
    if isinstance(error, RequestError) and error.thing in _NOT_FOUND:
        return 404
    if isinstance(error, BodyTooLongError):
        return 413
    return _HTTP_STATUS.get(error.kind, 500)


def retry_after(error: SkewlessError) -> dict[str, str]:
    """Return headers that say when to retry, or how to authenticate."""
    if error.kind == "access":
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, RateError):
        return {"Retry-After": str(error.wait_s)}
    return {"Retry-After": "1"} if isinstance(error, StoreError | BusyError) else {}
