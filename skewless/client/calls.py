"""Calls of the API: method, path and JSON of each, how to read its reply, and whether it may be repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import orjson

from skewless.client.replies import (
    Model,
    Models,
    Readiness,
    Reply,
    read_model,
    read_models,
    read_readiness,
    read_reply,
)
from skewless.contract.errors import RequestError, SkewlessError

if TYPE_CHECKING:
    from skewless.contract.spec import LogPolicy

Row = Mapping[str, Any]
T = TypeVar("T")

_UNAVAILABLE = 503
# The rest of the caller's time is for the network.
_SERVER_SHARE = 0.9


class _SentOptions(TypedDict, total=False):
    """Options that are sent unchanged."""

    model: str | None
    features: bool
    contributions: bool
    leaves: bool
    as_of: datetime | str | int | None
    max_feature_age_s: float | None


class PredictOptions(_SentOptions, total=False):
    """Options of a prediction; each is optional.

    Args:
        model: name of the model; optional if the server has one model.
        features: also return the feature values, with their status and age.
        contributions: also return the contribution of each feature to the score.
        leaves: also return the index of the leaf that the row reaches in each tree.
        as_of: evaluation time: a datetime or ISO 8601 text with time zone, or microseconds since the epoch.
        max_feature_age_s: rows older than this are stale, whatever their view allows, seconds.
        timeout_s: maximum time of the call, seconds; nine tenths of the remaining time are the server's time limit.
    """

    timeout_s: float | None


@dataclass(frozen=True, kw_only=True)
class ApiCall(Generic[T]):
    """One call of the API.

    Args:
        method: HTTP method.
        path: quoted path, relative to the base URL.
        read: returns the result for the JSON of the reply.
        payload: the JSON to send; None: no body.
        limit_s: maximum time of the call, seconds, which also limits the server's time; None: the client's limit.
        is_repeatable: whether the call may be repeated although a server may have executed it.
        expected_statuses: HTTP statuses of 400 and above that are results, not errors.
        on_no_reply: returns the result if no server replies, for the error; None: the error is raised.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    payload: Mapping[str, Any] | None = None
    limit_s: float | None = None
    is_repeatable: bool = True
    expected_statuses: frozenset[int] = frozenset()
    on_no_reply: Callable[[SkewlessError], T] | None = None

    def body(self, remaining_s: float) -> bytes | None:
        """Return the JSON to send; NaN and Infinity become null.

        Args:
            remaining_s: remaining time of the call, seconds.

        Raises:
            RequestError: a value cannot be converted to JSON.
        """
        payload = self.payload
        if payload is None:
            return None
        if self.limit_s is not None:
            payload = {**payload, "timeout_us": max(1, int(remaining_s * _SERVER_SHARE * 1e6))}
        try:
            return orjson.dumps(payload, option=orjson.OPT_SERIALIZE_NUMPY)
        except orjson.JSONEncodeError as error:
            raise RequestError(
                f"request to {self.path}",
                f"cannot be written as JSON: {error}",
                fix="send strings, numbers, times or null",
            ) from error


def predict_call(
    rows: Sequence[Row], *, timeout_s: float | None = None, **options: Unpack[_SentOptions]
) -> ApiCall[Reply]:
    """Return the call that predicts rows; options that are not set are not sent.

    Raises:
        RequestError: an option is unknown, or ``timeout_s`` is not above zero.
    """
    unknown = options.keys() - _SentOptions.__annotations__.keys()
    if unknown:
        raise RequestError("predict", "has no such option", value=min(unknown), fix="see PredictOptions")
    if timeout_s is not None and not timeout_s > 0:
        raise RequestError("option 'timeout_s'", "is not above zero", value=timeout_s, fix="give seconds, or None")
    sent = {name: value for name, value in options.items() if value is not None and value is not False}
    payload = {"rows": [*rows], **sent}
    return ApiCall(
        method="POST", path="/predict", read=partial(_read_predictions, len(rows)), payload=payload, limit_s=timeout_s
    )


def _read_predictions(n: int, data: Any) -> Reply:  # noqa: ANN401 - JSON
    reply = read_reply(data)
    if len(reply) != n:
        raise ValueError
    return reply


def events_call(
    source: str, events: Sequence[Row], event_id: str | None, log: LogPolicy = "best_effort"
) -> ApiCall[int]:
    """Return the call that sends events; it may be repeated only if every event has an id, by which duplicates drop."""
    return ApiCall(
        method="POST",
        path=f"/events/{quote(source, safe='')}" + ("" if log == "best_effort" else f"?log={log}"),
        read=partial(_read_accepted, log),
        payload={"events": [*events]},
        is_repeatable=event_id is not None and all(event.get(event_id) is not None for event in events),
    )


def _read_accepted(log: LogPolicy, data: Any) -> int:  # noqa: ANN401 - JSON
    if log == "required" and data["log"] != log:
        raise ValueError
    return int(data["accepted_for"])


def feedback_call(rows: Sequence[Row]) -> ApiCall[int]:
    """Return the call that sends outcomes; it may be repeated, since duplicate rows count once."""
    return ApiCall(
        method="POST",
        path="/feedback",
        read=lambda data: int(data["accepted"]),
        payload={"feedback": [*rows]},
    )


def models_call() -> ApiCall[Models]:
    """Return the call that lists the models."""
    return ApiCall(method="GET", path="/models", read=read_models)


def model_call(name: str) -> ApiCall[Model]:
    """Return the call that describes one model."""
    return ApiCall(method="GET", path=f"/models/{quote(name, safe='')}", read=read_model)


def check_call(name: str) -> ApiCall[dict[str, Any]]:
    """Return the call that makes a synthetic prediction."""
    return ApiCall(method="GET", path=f"/models/{quote(name, safe='')}/check", read=dict)


def ready_call() -> ApiCall[Readiness]:
    """Return the call that checks whether the server is ready."""
    return ApiCall(
        method="GET",
        path="/health/ready",
        read=read_readiness,
        expected_statuses=frozenset({_UNAVAILABLE}),
        on_no_reply=lambda error: Readiness(ready=False, reasons={"server": error.problem}),
    )


def live_call() -> ApiCall[bool]:
    """Return the call that checks whether a server responds."""
    return ApiCall(method="GET", path="/health/live", read=lambda data: bool(data["live"]), on_no_reply=lambda _: False)
