"""One line of the table: what is prepared, what is asked, and what must be said and left behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.nightly.integration.errors.scene import GOOD, Scene
from tests.worlds.command_line import run
from tests.worlds.edits import edit

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ErrorReply:
    """What came back.

    Args:
        code: the exit code, or the HTTP status.
        text: everything that was said.
        body: the same as JSON, where it is.
        error: the error in parts; empty where there was none.
    """

    code: int
    text: str
    body: Mapping[str, Any]
    error: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    def part(self, name: str) -> str:
        """Return one part of the error; of a usage error, which has no parts, all that was said."""
        return str(self.error.get(name, "")) if self.error else self.text


Arrange = Callable[[Scene], None]


def nothing(_: Scene) -> None:
    """Leave everything as it is."""


def quietly(_: Scene) -> AbstractContextManager[object]:
    """Do nothing while it is asked."""
    return nullcontext()


def no_more(_: Scene, __: ErrorReply) -> None:
    """Ask nothing more."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case of bad input.

    Args:
        ask: the command or the request.
        code: exit code, or HTTP status.
        thing, fix: what these parts of the error must hold.
        says: what the whole message must hold, above all the value.
        arrange: done before the state is taken for the first time.
        during: held while it is asked.
        added: file patterns below the project that it adds, each at least once.
        changed: file patterns that may differ afterwards; nothing else may.
        after: asked at the end.
        writes_rows: whether it may bring other views up to date in the store.
        shared: whether the server that all requests share answers.
        usage: whether the command line itself refuses, in its own words.
        soak: whether it runs only in `make soak`: another case has the same error by the same code.
    """

    name: str
    ask: Callable[[Scene], ErrorReply]
    code: int
    thing: str = ""
    says: tuple[str, ...] = ()
    fix: str = ""
    arrange: Arrange = nothing
    during: Callable[[Scene], AbstractContextManager[object]] = quietly
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    after: Callable[[Scene, ErrorReply], None] = no_more
    writes_rows: bool = False
    shared: bool = False
    usage: bool = False
    soak: bool = False


LEDGER = ".skewless/skewless.db*"
ROUND = ("scheduler", "--only", "materialize", "--only", "validate", "--only", "retrain")


def verb(*words: str, repo: bool = True) -> Callable[[Scene], ErrorReply]:
    """Return the asking of a verb; ``{elsewhere}`` in a word is the case's own folder, ``{repo}`` its project."""

    def ask(scene: Scene) -> ErrorReply:
        given = [word.replace("{elsewhere}", str(scene.elsewhere)).replace("{repo}", str(scene.repo)) for word in words]
        said = run(*given, *(("--repo", scene.repo) if repo else ()), "--json")
        body = json.loads(said.stdout) if said.stdout.startswith("{") else {}
        return ErrorReply(code=said.code, text=said.stdout + said.stderr, body=body, error=body.get("error", {}))

    return ask


def request(method: str, path: str, body: bytes | None = None) -> Callable[[Scene], ErrorReply]:
    """Return the asking of the case's server."""

    def ask(scene: Scene) -> ErrorReply:
        assert scene.server is not None
        status, headers, text = scene.server.ask(method, path, body)
        found = json.loads(text)
        return ErrorReply(code=status, text=text, body=found, error=found.get("error", {}), headers=headers)

    return ask


def post(body: object) -> Callable[[Scene], ErrorReply]:
    """Return the asking for predictions; bytes are sent as they are."""
    return request("POST", "/predict", body if isinstance(body, bytes) else json.dumps(body).encode())


def rows(*changes: Mapping[str, Any], model: str = "fraud") -> dict[str, Any]:
    """Return a request of good rows, each with some fields changed."""
    return {"model": model, "rows": [{**GOOD, **change} for change in changes or ({},)], "features": True}


def edited(file: str, old: str, new: str) -> Arrange:
    """Return the replacing of a text in one of the project's files."""
    return lambda scene: edit(scene.repo, old, new, file=file)


def applied(file: str, old: str, new: str) -> Arrange:
    """Return the same, and applied."""

    def arrange(scene: Scene) -> None:
        edit(scene.repo, old, new, file=file)
        assert run("apply", "--repo", scene.repo).code == 0

    return arrange


def written(file: str, content: bytes | str) -> Arrange:
    """Return the writing of a file; a path that begins with ``elsewhere/`` lies outside the project."""

    def arrange(scene: Scene) -> None:
        path = place(scene, file)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return arrange


def environment(name: str, value: str) -> Arrange:
    """Return the setting of a variable."""
    return lambda scene: scene.setenv(name, value)


def both(*steps: Arrange) -> Arrange:
    """Return some steps as one."""

    def arrange(scene: Scene) -> None:
        for step in steps:
            step(scene)

    return arrange


def place(scene: Scene, file: str) -> Path:
    """Return a file of the project, or of the case's own folder."""
    head, _, rest = file.partition("/")
    return scene.elsewhere / rest if head == "elsewhere" else scene.repo / file
