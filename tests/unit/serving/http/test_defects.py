"""A defect of the application is answered in the shape of its path, as JSON, and logged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from skewless.serving.http.middleware import reply_to_defects


async def fails(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - as ASGI has it
    raise ZeroDivisionError


async def fails_late(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - as ASGI has it
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ZeroDivisionError


def ask(app: Callable[[Scope, Receive, Send], object], path: str) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(reply_to_defects(app)({"type": "http", "path": path}, receive, send))  # type: ignore[arg-type]
    return sent


@pytest.mark.parametrize("path", ["/push", "/v2/models/fraud/config"])
def test_a_defect_is_told_in_the_shape_of_the_path(path: str) -> None:
    with capture_logs() as logs:
        start, body = ask(fails, path)
    assert start["status"] == 500
    assert dict(start["headers"])[b"content-type"] == b"application/json"
    error = json.loads(body["body"])["error"]
    assert "failed on this request" in (error if path.startswith("/v2") else error["message"])
    (line,) = logs
    assert (line["event"], line["path"], type(line["exc_info"])) == ("request_failed", path, ZeroDivisionError)


def test_a_reply_that_has_begun_is_left_to_the_server() -> None:
    with pytest.raises(ZeroDivisionError):
        ask(fails_late, "/push")
