"""The routes that take events: one object, a list of them, lines of them, or Feast's columns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from skewless.contract.errors import RequestError
from skewless.serving.events import SOURCE, Events
from skewless.serving.http.openapi import RequestBody
from skewless.serving.http.reply import json_response
from skewless.serving.http.wire_limits import BodyTooLongError

_LARGE = 65_536  # bytes from which on a body is parsed beside the event loop
_EVENTS = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "description": 'one event, or {"events": [...]}'},
                "examples": {"one": {"value": {"id": "a1"}}, "many": {"value": {"events": [{"id": "a1"}]}}},
            },
            "application/x-ndjson": {"schema": {"type": "string", "format": "binary", "description": "one a line"}},
        },
    }
}
_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_ONE = 'send one JSON object, {"events": [{...}]}, or lines of objects as application/x-ndjson'
_PUSH = 'send {"push_source_name": "...", "df": {"column": [...]}, "to": "online"}'
_Mode = Literal["online", "offline", "online_and_offline"]
_T = TypeVar("_T")


class PushRequest(BaseModel):
    """What ``POST /push`` takes, as Feast's feature server does."""

    model_config = ConfigDict(extra="forbid")

    push_source_name: str
    df: dict[str, list[object]] = Field(min_length=1, description="columns of equal lengths, of one value or more")
    to: _Mode = Field("online", description="all go to the stream")
    allow_registry_cache: Any = Field(None, description="Feast's; of no effect")
    transform_on_write: Any = Field(None, description="Feast's; of no effect")


_BODY = RequestBody(PushRequest)


class EventsReply(BaseModel):
    """What the routes of events answer."""

    accepted_for: int = Field(description="how many events the stream has now; the worker judges them")
    source: str


def add_events(app: FastAPI, events: Events | None) -> None:
    """Add the routes.

    Args:
        events: takes them; None: every source is unknown.
    """

    @app.post(
        "/events/{source}",
        summary="Put events into a source's stream",
        openapi_extra=_EVENTS,
        status_code=202,
        response_model=EventsReply,
    )
    async def take(source: str, request: Request) -> Response:
        taking = _taking(events, source)
        found = taking.source(source)
        body = await _body(request, taking.most_bytes)
        kind = request.headers.get("content-type", "")
        payloads = await parse_beside(body, lambda: parse_events(body, kind))
        await taking.send(found, payloads)
        return _taken(source, len(payloads))

    @app.post(
        "/push",
        summary="Put events into a source's stream, in the shape of Feast's feature server",
        openapi_extra=_BODY.described,
        status_code=202,
        response_model=EventsReply,
    )
    async def push(request: Request) -> Response:
        taking = _taking(events, None)
        body = await _body(request, taking.most_bytes)
        source, payloads = await parse_beside(body, lambda: parse_push(body))
        await taking.send(taking.source(source), payloads)
        return _taken(source, len(payloads))


def _taking(events: Events | None, source: str | None) -> Events:
    if events is None:
        raise RequestError(SOURCE, "is unknown: this server takes no events", value=source, fix="use `skewless serve`")
    return events


async def _body(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise BodyTooLongError("request body", f"has more than {most} bytes", fix="send fewer events at once")
        parts.append(part)
    return b"".join(parts)


async def parse_beside(body: bytes, parse: Callable[[], _T]) -> _T:
    """Return what a body says; a large one is parsed beside the event loop."""
    return parse() if len(body) < _LARGE else await asyncio.to_thread(parse)


def _taken(source: str, n: int) -> Response:
    return json_response({"accepted_for": n, "source": source}, 202)


def parse_events(body: bytes, content_type: str) -> list[bytes]:
    """Return the messages of a request; an object is sent as it came, to the byte.

    >>> parse_events(b'{"id": 1.50}', "")
    [b'{"id": 1.50}']
    >>> parse_events(b'{"events": [{"id": 1}, {"id": 2}]}', "application/json")
    [b'{"id":1}', b'{"id":2}']

    Raises:
        RequestError: it holds something else than objects, or none.
    """
    if content_type.partition(";")[0].strip().lower() in _LINES:
        return _lines(body)
    found = _object(body, "request body", _ONE)
    if found.keys() != {"events"} or not isinstance(found["events"], list):
        return [body]
    for i, event in enumerate(found["events"]):
        if not isinstance(event, dict):
            raise RequestError(f"event {i}", "is not a JSON object", value=event, fix=_ONE)
    return _some(_messages(found["events"]))


def parse_push(body: bytes) -> tuple[str, list[bytes]]:
    """Return the source and the messages of a request as Feast's feature server takes it.

    >>> parse_push(b'{"push_source_name": "s", "df": {"a": [1, 2], "b": ["x", null]}}')
    ('s', [b'{"a":1,"b":"x"}', b'{"a":2,"b":null}'])

    Raises:
        RequestError: it is not of that shape.
    """
    found = _object(body, "request body", _PUSH)
    unknown = found.keys() - set(_BODY.names)
    if unknown:
        raise RequestError("request body", "has an unknown field", value=min(unknown), fix=_PUSH)
    name, columns = found.get("push_source_name"), found.get("df")
    if not isinstance(name, str):
        raise RequestError("request field 'push_source_name'", "is not a text", value=name, fix=_PUSH)
    if found.get("to", "online") not in get_args(_Mode):
        raise RequestError(
            "request field 'to'",
            "is unknown",
            value=found["to"],
            fix=f"use one of {', '.join(get_args(_Mode))}: all mean the same",
        )
    return name, _some(_messages(_rows(columns)))


def _messages(events: Sequence[Mapping[str, Any]]) -> list[bytes]:
    try:
        return [orjson.dumps(event) for event in events]
    except TypeError as error:
        raise RequestError("request body", f"is nested too deep: {error}", fix="send flat events") from error


def _rows(columns: object) -> list[dict[str, Any]]:
    if not isinstance(columns, dict) or not all(isinstance(values, list) for values in columns.values()):
        raise RequestError("request field 'df'", "is not an object of columns", fix=_PUSH)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise RequestError(
            "request field 'df'", "has columns of several lengths", value=lengths, fix="send full columns"
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _lines(body: bytes) -> list[bytes]:
    lines = body.split(b"\n")
    for i, line in enumerate(lines, 1):
        if line.strip():
            _object(line, f"line {i}", "send one JSON object a line")
    return _some([line.strip() for line in lines if line.strip()])


def _object(text: bytes, thing: str, fix: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RequestError(thing, f"is not JSON: {error}", fix=fix) from error
    if not isinstance(found, dict):
        raise RequestError(thing, "is not a JSON object", fix=fix)
    return found


def _some(payloads: Sequence[bytes]) -> list[bytes]:
    if not payloads:
        raise RequestError("request body", "holds no event", fix=_ONE)
    return list(payloads)
