"""Routes that accept events: one JSON object, a list, lines of objects, or Feast's push format."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

import orjson
from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from skewless.contract.errors import RequestError
from skewless.contract.spec import LogPolicy
from skewless.serving.events import EventForwarder
from skewless.serving.http.openapi import RequestBody
from skewless.serving.http.predict_route import load_json
from skewless.serving.http.reply import json_response
from skewless.serving.http.wire_limits import BodyTooLongError

_LARGE_BODY = 65_536  # bytes from which a body is parsed in a thread
_EVENTS_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "description": 'One event, or {"events": [...]}.'},
                "examples": {"one": {"value": {"id": "a1"}}, "many": {"value": {"events": [{"id": "a1"}]}}},
            },
            "application/x-ndjson": {
                "schema": {"type": "string", "format": "binary", "description": "One event per line."}
            },
        },
    }
}
_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_EVENTS_FIX = 'send one JSON object, {"events": [{...}]}, or lines of objects as application/x-ndjson'
_PUSH_FIX = 'send {"push_source_name": "...", "df": {"column": [...]}, "to": "online"}'
_Mode = Literal["online", "offline", "online_and_offline"]
_POLICIES = get_args(LogPolicy)
_Log = Annotated[
    str,
    Query(
        description="`required`: reply when the log has the events, not only the stream.",
        json_schema_extra={"enum": list(_POLICIES)},
    ),
]
_T = TypeVar("_T")


class PushRequest(BaseModel):
    """Body of ``POST /push``, as in Feast's feature server."""

    model_config = ConfigDict(extra="forbid")

    push_source_name: str
    df: dict[str, list[object]] = Field(min_length=1, description="Columns of equal length, with one or more values.")
    to: _Mode = Field("online", description="Has no effect: events always go to the stream.")
    allow_registry_cache: Any = Field(None, description="Accepted for Feast's clients; has no effect.")
    transform_on_write: Any = Field(None, description="Accepted for Feast's clients; has no effect.")


_BODY = RequestBody(PushRequest)


class EventsReply(BaseModel):
    """Reply of the event routes."""

    accepted_for: int = Field(description="Number of events now in the stream; the stream worker validates them.")
    source: str
    log: str = Field(description="`required`: the log has the events; `best_effort`: the stream has them.")


def add_event_routes(app: FastAPI, forwarder: EventForwarder) -> None:
    """Add the event routes."""

    @app.post(
        "/events/{source}",
        summary="Send events to the stream of an event source",
        openapi_extra=_EVENTS_BODY,
        status_code=202,
        response_model=EventsReply,
    )
    async def send_events(source: str, request: Request, log: _Log = "best_effort") -> Response:
        # Before the body is read: an unknown source is rejected at once.
        decoded, policy = forwarder.source(source), _check_policy(log)
        body = await _read_body(request, forwarder.max_bytes)
        content_type = request.headers.get("content-type", "")
        payloads = await parse_in_thread(body, lambda: parse_events(body, content_type))
        await forwarder.send(decoded, payloads, policy)
        return _accepted_reply(source, len(payloads), policy)

    @app.post(
        "/push",
        summary="Send events in the format of Feast's feature server",
        openapi_extra=_BODY.openapi_extra,
        status_code=202,
        response_model=EventsReply,
    )
    async def push(request: Request, log: _Log = "best_effort") -> Response:
        policy = _check_policy(log)
        body = await _read_body(request, forwarder.max_bytes)
        source, payloads = await parse_in_thread(body, lambda: parse_push(body))
        await forwarder.send(forwarder.source(source), payloads, policy)
        return _accepted_reply(source, len(payloads), policy)


async def _read_body(request: Request, max_bytes: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise BodyTooLongError(
                "request body", f"has more than {max_bytes} bytes", fix="send fewer events per request"
            )
        parts.append(part)
    return b"".join(parts)


async def parse_in_thread(body: bytes, parse: Callable[[], _T]) -> _T:
    """Return the parsed body; a large one is parsed in a thread, so that other requests do not wait."""
    return parse() if len(body) < _LARGE_BODY else await asyncio.to_thread(parse)


def _check_policy(log: str) -> LogPolicy:
    if log not in _POLICIES:
        raise RequestError("parameter 'log'", "is unknown", value=log, fix=f"use one of {', '.join(_POLICIES)}")
    return cast("LogPolicy", log)


def _accepted_reply(source: str, n: int, log: LogPolicy) -> Response:
    return json_response({"accepted_for": n, "source": source, "log": log}, 202)


def parse_events(body: bytes, content_type: str) -> list[bytes]:
    """Return the messages of a request; a single object is sent byte for byte as received.

    >>> parse_events(b'{"id": 1.50}', "")
    [b'{"id": 1.50}']
    >>> parse_events(b'{"events": [{"id": 1}, {"id": 2}]}', "application/json")
    [b'{"id":1}', b'{"id":2}']

    Raises:
        RequestError: the body contains other values than objects, or no event.
    """
    if content_type.partition(";")[0].strip().lower() in _LINES:
        return _parse_lines(body)
    decoded = _parse_object(body, "request body", _EVENTS_FIX)
    if decoded.keys() != {"events"} or not isinstance(decoded["events"], list):
        return [body]
    for i, event in enumerate(decoded["events"]):
        if not isinstance(event, dict):
            raise RequestError(f"event {i}", "is not a JSON object", value=event, fix=_EVENTS_FIX)
    return _require_events(_encode_events(decoded["events"]))


def parse_push(body: bytes) -> tuple[str, list[bytes]]:
    """Return the source and the messages of a request in the format of Feast's feature server.

    >>> parse_push(b'{"push_source_name": "s", "df": {"a": [1, 2], "b": ["x", null]}}')
    ('s', [b'{"a":1,"b":"x"}', b'{"a":2,"b":null}'])

    Raises:
        RequestError: the body does not have this format.
    """
    decoded = _parse_object(body, "request body", _PUSH_FIX)
    unknown = decoded.keys() - set(_BODY.names)
    if unknown:
        raise RequestError("request body", "has an unknown field", value=min(unknown), fix=_PUSH_FIX)
    name, columns = decoded.get("push_source_name"), decoded.get("df")
    if not isinstance(name, str):
        raise RequestError("request field 'push_source_name'", "is not a string", value=name, fix=_PUSH_FIX)
    if decoded.get("to", "online") not in get_args(_Mode):
        raise RequestError(
            "request field 'to'",
            "is unknown",
            value=decoded["to"],
            fix=f"use one of {', '.join(get_args(_Mode))}; they have the same effect",
        )
    return name, _require_events(_encode_events(_rows_of_columns(columns)))


def _encode_events(events: Sequence[Mapping[str, Any]]) -> list[bytes]:
    try:
        return [orjson.dumps(event) for event in events]
    except TypeError as error:
        raise RequestError("request body", f"is nested too deeply: {error}", fix="send flat events") from error


def _rows_of_columns(columns: object) -> list[dict[str, Any]]:
    if not isinstance(columns, dict) or not all(isinstance(values, list) for values in columns.values()):
        raise RequestError("request field 'df'", "is not an object with columns", fix=_PUSH_FIX)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise RequestError(
            "request field 'df'", "has columns of different lengths", value=lengths, fix="send columns of equal length"
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _parse_lines(body: bytes) -> list[bytes]:
    lines = body.split(b"\n")
    for i, line in enumerate(lines, 1):
        if line.strip():
            _parse_object(line, f"line {i}", "send one JSON object per line")
    return _require_events([line.strip() for line in lines if line.strip()])


def _parse_object(text: bytes, thing: str, fix: str) -> dict[str, Any]:
    decoded = load_json(text, thing, fix)
    if not isinstance(decoded, dict):
        raise RequestError(thing, "is not a JSON object", fix=fix)
    return decoded


def _require_events(payloads: Sequence[bytes]) -> list[bytes]:
    if not payloads:
        raise RequestError("request body", "has no event", fix=_EVENTS_FIX)
    return list(payloads)
