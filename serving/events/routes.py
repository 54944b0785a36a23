"""The routes that take events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from skewless.contract.errors import RequestError
from skewless.serving.events.bodies import TooLongError, parse_events, parse_push
from skewless.serving.events.sending import SOURCE, Events
from skewless.serving.http.openapi import body_of

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
_T = TypeVar("_T")


class PushRequest(BaseModel):
    """What ``POST /push`` takes, as Feast's feature server does."""

    model_config = ConfigDict(extra="forbid")

    push_source_name: str
    df: dict[str, list[object]] = Field(min_length=1, description="columns of equal lengths, of one value or more")
    to: Literal["online", "offline", "online_and_offline"] = Field("online", description="all go to the stream")
    allow_registry_cache: Any = Field(None, description="Feast's; of no effect")
    transform_on_write: Any = Field(None, description="Feast's; of no effect")


class EventsTaken(BaseModel):
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
        response_model=EventsTaken,
    )
    async def take(source: str, request: Request) -> Response:
        taking = _taking(events, source)
        found = taking.source(source)
        body = await _body(request, taking.most_bytes)
        kind = request.headers.get("content-type", "")
        payloads = await _parsed(body, lambda: parse_events(body, kind))
        await taking.send(found, payloads)
        return _taken(source, len(payloads))

    @app.post(
        "/push",
        summary="Put events into a source's stream, in the shape of Feast's feature server",
        openapi_extra=body_of(PushRequest),
        status_code=202,
        response_model=EventsTaken,
    )
    async def push(request: Request) -> Response:
        taking = _taking(events, None)
        body = await _body(request, taking.most_bytes)
        source, payloads = await _parsed(body, lambda: parse_push(body))
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
            raise TooLongError("request body", f"has more than {most} bytes", fix="send fewer events at once")
        parts.append(part)
    return b"".join(parts)


async def _parsed(body: bytes, parse: Callable[[], _T]) -> _T:
    return parse() if len(body) < _LARGE else await asyncio.to_thread(parse)


def _taken(source: str, n: int) -> Response:
    return Response(orjson.dumps({"accepted_for": n, "source": source}), 202, media_type="application/json")
