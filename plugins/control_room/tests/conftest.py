"""The application of the control room, asked in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from skewless_control_room.access import Local, SignIn, Viewer
from skewless_control_room.app import ControlRoom
from skewless_control_room.readers import Readers
from tests.worlds.trained import Sandbox, copy_project, opened

TOKEN = "the-token-of-this-session"  # noqa: S105 - of tests
HOST = "127.0.0.1"


@dataclass(frozen=True)
class RoomReply:
    """What the application answered."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> Any:  # noqa: ANN401 - JSON
        """The JSON that it must be."""
        return orjson.loads(self.text)


@dataclass(frozen=True)
class OnePerson(SignIn):
    """Takes everybody for one person."""

    person: Viewer

    def viewer(self, request: Request) -> Viewer:  # noqa: ARG002 - the protocol's
        return self.person


@dataclass(frozen=True)
class Pages:
    """A control room without a socket."""

    app: Starlette

    def get(self, path: str, **headers: str) -> RoomReply:
        """Ask for a page."""
        return asyncio.run(self._send("GET", path, b"", headers))

    def post(self, path: str, form: Mapping[str, str], **headers: str) -> RoomReply:
        """Send a form as a browser does."""
        return asyncio.run(self._send("POST", path, urlencode(form).encode(), headers))

    async def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> RoomReply:
        route, _, query = path.partition("?")
        named = {"host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope = {
            "type": "http",
            "method": method,
            "path": route,
            "raw_path": route.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "scheme": "http",
            "server": (HOST, 80),
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        }
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:  # noqa: ANN401 - of ASGI
            sent.append(message)

        with suppress(ZeroDivisionError):  # Starlette replies to a defect, then raises it for the log of the server
            await self.app(scope, receive, send)
        text = b"".join(item.get("body", b"") for item in sent[1:]).decode()
        pairs = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return RoomReply(sent[0]["status"], pairs, text)


@pytest.fixture
def open_pages() -> Iterator[Callable[[Path], Pages]]:
    """Opens the pages of a project; they are closed after the test."""
    opened: list[Readers] = []

    def open_them(repo: Path) -> Pages:
        readers = Readers(repo, {"threads": 1})
        opened.append(readers)
        room = ControlRoom(name=repo.name, readers=readers, sign_in=Local(TOKEN), hosts=frozenset({HOST}))
        return Pages(room.app())

    yield open_them
    for readers in opened:
        readers.close()


@pytest.fixture
def pages(trained: Path, tmp_path: Path, open_pages: Callable[[Path], Pages]) -> Pages:
    """The pages of a copy of a project with a champion."""
    return open_pages(copy_project(trained, tmp_path / "p"))


@pytest.fixture
def spot(two_versions: Path, tmp_path: Path) -> Iterator[Sandbox]:
    """A project whose model has a second version, and no rollout in progress."""
    with opened(copy_project(two_versions, tmp_path / "p")) as place:
        yield place
