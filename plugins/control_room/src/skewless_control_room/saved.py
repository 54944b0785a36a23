"""The pages of a project as files in a folder, which a browser shows without a server."""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from html import unescape
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.types import Message

from skewless.contract.errors import PlaceError, SkewlessError
from skewless.infra.platform.storage.durable import make_folder
from skewless.project import Project
from skewless_control_room.access import Local
from skewless_control_room.app import ControlRoom
from skewless_control_room.pages import all_pages
from skewless_control_room.readers import Readers

MOST_PAGES = 500
_LINK = re.compile(r' href="(/[^"]*)"')
_STATIC = ("page.css", "icon.svg")
_OK = 200


@dataclass(frozen=True, kw_only=True)
class SavedPages:
    """The result of a save.

    Args:
        folder: with ``index.html``.
        pages: number of written pages.
        failed: paths of pages that had no answer.
        skipped: number of pages beyond ``MOST_PAGES``.
    """

    folder: Path
    pages: int
    failed: tuple[str, ...] = ()
    skipped: int = 0

    def as_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "folder": str(self.folder),
            "pages": self.pages,
            "failed": list(self.failed),
            "skipped": self.skipped,
        }


def save_pages(project: Project, folder: Path) -> SavedPages:
    """Write the pages of a project, from the first page along its links, without forms and actions.

    Files with the same names are replaced; others stay. It reads the project and changes nothing else.

    Raises:
        SkewlessError: the first page has no answer.
        PlaceError: a file cannot be written.
    """
    with closing(Readers(project.repo, project.settings.model_dump(exclude_unset=True))) as readers:
        room = ControlRoom(name=project.repo.name, readers=readers, sign_in=Local("", "view"), is_saved=True)
        pages, failed, skipped = asyncio.run(_read_pages(room.app()))
    if "/" not in pages:
        raise SkewlessError("control room", "has no first page", fix="run `skewless doctor`")
    for path, text in pages.items():
        _write(folder / _file(path), _relink(text, path, pages).encode())
    for name in _STATIC:
        _write(folder / "static" / name, files(__package__).joinpath("static", name).read_bytes())
    return SavedPages(folder=folder, pages=len(pages), failed=tuple(failed), skipped=skipped)


async def _read_pages(app: Starlette) -> tuple[dict[str, str], list[str], int]:
    """Return pages by path, the paths that failed, and the number of known pages that were not read."""
    pages: dict[str, str] = {}
    failed: list[str] = []
    saved = re.compile("|".join(re.sub(r"{\w+}", "[^/?]+", page.path) for page in all_pages() if not page.is_personal))
    waiting = ["/"]
    seen = {"/"}
    while waiting and len(pages) < MOST_PAGES:
        path = waiting.pop(0)
        status, text = await _get(app, path)
        if status != _OK:
            failed.append(path)
            continue
        pages[path] = text
        for link in map(unescape, _LINK.findall(text)):
            if saved.fullmatch(link) and not link.endswith(".json") and link not in seen:
                seen.add(link)
                waiting.append(link)
    return pages, failed, len(waiting)


async def _get(app: Starlette, path: str) -> tuple[int, str]:
    """Return status and text of a page, without a socket."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "server": ("localhost", 80),
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()


def _file(path: str) -> str:
    """Return the file of a page, relative to the folder.

    >>> _file("/"), _file("/models/a%20b/versions/000001")
    ('index.html', 'models/a%20b/versions/000001.html')
    """
    return "index.html" if path == "/" else f"{path[1:]}.html"


def _relink(text: str, path: str, pages: Mapping[str, str]) -> str:
    """Return a page whose links lead to other files; a link to a page that is not saved becomes text."""
    start = posixpath.dirname(_file(path))

    def replace(match: re.Match[str]) -> str:
        target = unescape(match[1])
        if target.startswith("/static/"):
            file = target[1:]
        elif target in pages:
            file = _file(target)
        else:
            return ""
        # A file name keeps the escapes of its path, so a link to it escapes them again.
        return f' href="{quote(posixpath.relpath(file, start or "."))}"'

    return _LINK.sub(replace, text)


def _write(path: Path, content: bytes) -> None:
    try:
        make_folder(path.parent)
        path.write_bytes(content)
    except OSError as error:
        raise PlaceError(f"file {path}", f"cannot be written: {error.strerror}", fix="choose another folder") from error
