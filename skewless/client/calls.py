"""What can be asked: each call as its method, path and JSON, how its reply is read, and whether it may be repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypedDict, TypeVar, Unpack
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

Row = Mapping[str, Any]
T = TypeVar("T")

_UNAVAILABLE = 503
# The rest of a caller's time is for the way there and back.
_SHARE_OF_THE_SERVER = 0.9


class _SentOptions(TypedDict, total=False):
    """What goes to the server as it is."""

    model: str | None
    features: bool
    contributions: bool
    as_of: datetime | str | int | None
    max_feature_age_s: float | None


class PredictOptions(_SentOptions, total=False):
    """What can be asked of a prediction; each may be left out.

    Args:
        model: name of the model; may be left out where one is served.
        features: also return what the model saw, and where it came from.
        contributions: also return how much each feature moved the score.
        as_of: the moment to evaluate at: a time or ISO 8601 text, with a zone, or microseconds since the epoch.
        max_feature_age_s: rows older than that are stale, whatever their view says, seconds.
        timeout_s: most that the call may take, seconds; the server is told nine tenths of what is left of it.
    """

    timeout_s: float | None


@dataclass(frozen=True, kw_only=True)
class ApiCall(Generic[T]):
    """One call of the API.

    Args:
        method: HTTP method.
        path: quoted path, without the prefix of a base URL.
        read: makes the result from the JSON of the reply.
        payload: the JSON to send; None: no body.
        limit_s: how long the caller waits at most, seconds; the server is told its share. None: the client's limit.
        safe: whether it may be repeated when a server may have done it already.
        answers: HTTP statuses of 400 and above that are no failure.
        silence: makes the result from the error when nobody answers; None: it is raised.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    payload: Mapping[str, Any] | None = None
    limit_s: float | None = None
    safe: bool = True
    answers: frozenset[int] = frozenset()
    silence: Callable[[SkewlessError], T] | None = None

    def body(self, left_s: float) -> bytes | None:
        """Return the JSON to send; NaN and Infinity become null.

        Args:
            left_s: what is left of the caller's time, seconds.

        Raises:
            RequestError: a value has no JSON.
        """
        payload = self.payload
        if payload is None:
            return None
        if self.limit_s is not None:
            payload = {**payload, "timeout_us": max(1, int(left_s * _SHARE_OF_THE_SERVER * 1e6))}
        try:
            return orjson.dumps(payload, option=orjson.OPT_SERIALIZE_NUMPY)
        except orjson.JSONEncodeError as error:
            raise RequestError(
                f"request to {self.path}",
                f"cannot be written as JSON: {error}",
                fix="send text, numbers, times or null",
            ) from error


def predict_call(
    rows: Sequence[Row], *, timeout_s: float | None = None, **options: Unpack[_SentOptions]
) -> ApiCall[Reply]:
    """Return the call that predicts rows; an option that was not asked for is not sent.

    Raises:
        RequestError: an option is unknown, or ``timeout_s`` is not above zero.
    """
    unknown = options.keys() - _SentOptions.__annotations__.keys()
    if unknown:
        raise RequestError("predict", "has no such option", value=min(unknown), fix="see PredictOptions")
    if timeout_s is not None and not timeout_s > 0:
        raise RequestError("option 'timeout_s'", "is not above zero", value=timeout_s, fix="give seconds, or None")
    asked = {name: value for name, value in options.items() if value is not None and value is not False}
    payload = {"rows": [*rows], **asked}
    return ApiCall(
        method="POST", path="/predict", read=partial(_read_each, len(rows)), payload=payload, limit_s=timeout_s
    )


def _read_each(n: int, data: Any) -> Reply:  # noqa: ANN401 - JSON
    reply = read_reply(data)
    if len(reply) != n:
        raise ValueError
    return reply


def events_call(source: str, events: Sequence[Row], event_id: str | None) -> ApiCall[int]:
    """Return the call that sends events; it is safe only where the source can tell a repeated event by its id."""
    return ApiCall(
        method="POST",
        path=f"/events/{quote(source, safe='')}",
        read=lambda data: int(data["accepted_for"]),
        payload={"events": [*events]},
        safe=event_id is not None and all(event.get(event_id) is not None for event in events),
    )


def feedback_call(rows: Sequence[Row]) -> ApiCall[int]:
    """Return the call that says what came of predictions; a row that comes twice counts once, so it may be repeated."""
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


def ready_call() -> ApiCall[Readiness]:
    """Return the call that asks whether predictions are answered."""
    return ApiCall(
        method="GET",
        path="/health/ready",
        read=read_readiness,
        answers=frozenset({_UNAVAILABLE}),
        silence=lambda error: Readiness(ready=False, reasons={"server": error.problem}),
    )


def live_call() -> ApiCall[bool]:
    """Return the call that asks whether a server answers."""
    return ApiCall(method="GET", path="/health/live", read=lambda data: bool(data["live"]), silence=lambda _: False)
