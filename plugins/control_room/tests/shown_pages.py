"""A page as its readers get it, without a process: its HTML from data, and what a browser would make of it."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request

from skewless.project import Project
from skewless_control_room.access import Local
from skewless_control_room.app import ControlRoom, to_json
from skewless_control_room.page import Page, Query
from skewless_control_room.pages import ACTIONS
from skewless_control_room.readers import Readers
from tests.worlds.hostile_text import Browser

_SCRIPTS = ("htmx.min.js", "page.js")
LONGEST = 250_000  # bytes of a page
NOWHERE = {"database": "postgresql://nobody@127.0.0.1:1/x?connect_timeout=1", "store": "redis://127.0.0.1:1"}


def show(project: Project, page: Page, path: str, query: Query | None = None) -> str:
    """Return the HTML of a page; its JSON must be possible, and neither may be too long."""
    query = query or Query()
    scope = {"type": "http", "path": path, "query_string": b"", "headers": [], "method": "GET"}
    room = ControlRoom(name="p", readers=Readers(project.repo, {}), sign_in=Local("t"))
    data = page.read(project, query)
    reply = room.page(
        Request(scope),
        page.template,
        page.question.format(**query.path),
        Local("t").viewer(Request(scope)),
        page=data,
        json_url=f"{path}.json",
        actions={action.name.replace("-", "_"): action for action in ACTIONS},
    )
    body = bytes(reply.body)
    assert len(body) < LONGEST
    assert len(to_json(data)) < LONGEST
    html = body.decode()
    found = Browser(html)
    assert html.count("<script") == len(_SCRIPTS)
    assert not found.tags & {"iframe", "img", "object", "embed", "base", "b", "foreignobject"}
    assert not [name for name in found.attributes if name.startswith("on")]
    assert [link for link in found.links if not link.startswith(("/", "#"))] == []
    assert found.refreshes == 0
    return html


def read_empty(folder: Path) -> Project:
    """Return a project without a plan."""
    folder.mkdir()
    config = "project: p\nprovider: local\nregistry: .skewless/registry.db\nentity_key_serialization_version: 3\n"
    (folder / "feature_store.yaml").write_text(config)
    return Project(folder)
