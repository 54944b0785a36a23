"""Settings, places and words that cannot be."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.nightly.integration.errors.case import Arrange, Case, edited, environment, verb, written
from tests.nightly.integration.errors.scene import Scene

_VERBS = ("plan", "materialize", "serve")


def _setting(name: str, arrange: Arrange, *says: str, thing: str, word: str = "plan", code: int = 2) -> Case:
    return Case(name=f"{word}: {name}", ask=verb(word), code=code, arrange=arrange, thing=thing, says=says, fix="")


@contextmanager
def _taken(scene: Scene) -> Iterator[None]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        scene.setenv("SKEWLESS_PORT", str(other.getsockname()[1]))
        yield


def _used(scene: Scene) -> None:
    (scene.elsewhere / "notes.txt").write_text("mine")


CASES: tuple[Case, ...] = (
    *(
        _setting("unknown setting", written("skewless.yaml", "prot: 80\n"), thing="setting 'prot'", word=word)
        for word in _VERBS
    ),
    *(
        _setting("wrong variable", environment("SKEWLESS_PORT", "eighty"), "'eighty'", thing="'port'", word=word)
        for word in _VERBS
    ),
    _setting("setting out of range", written("skewless.yaml", "max_batch: 0\n"), "0", thing="setting 'max_batch'"),
    _setting("settings that are no table", written("skewless.yaml", "- 1\n"), "[1]", thing="skewless.yaml"),
    _setting("settings that are no YAML", written("skewless.yaml", "a: [\n"), "is not YAML", thing="skewless.yaml"),
    _setting("unknown clock", environment("SKEWLESS_CLOCK", "sundial"), "'sundial'", thing="'clock'", word="apply"),
    _setting(
        "wrong memory limit", environment("SKEWLESS_MEMORY_LIMIT", "lots"), "'lots'", thing="'memory_limit'"
    ),
    _setting(
        "wrong cron", written("skewless.yaml", 'materialize_cron: "* * *"\n'), "'* * *'",
        thing="cron of job 'materialize'", word="scheduler",
    ),
    _setting(
        "wrong cron of a model", edited("models.py", '"0 4 * * *"', '"0 25 * * *"'), "'0 25 * * *'",
        thing="cron of job 'retrain fraud'",
    ),
    Case(
        name="serve: port in use", ask=verb("serve"), code=10, during=_taken,
        thing="address 127.0.0.1:", says=("in use",), fix="choose another --port",
    ),
    Case(
        name="init: folder in use", ask=verb("init", "{elsewhere}", repo=False), code=10, arrange=_used,
        thing="folder ", says=("is not empty", "'notes.txt'"), fix="an empty folder",
    ),
    Case(
        name="init: a file in the way", ask=verb("init", "{elsewhere}/notes.txt", repo=False), code=10, arrange=_used,
        thing="notes.txt", says=("is not a folder",), fix="an empty folder",
    ),
    Case(
        name="plan: no project", ask=verb("plan", "--repo", "{elsewhere}", repo=False), code=10,
        thing="folder ", says=("is not a project",), fix="skewless init DIR",
    ),
    Case(name="unknown verb", ask=verb("materialise"), code=2, says=("No such command 'materialise'",), usage=True),
    Case(name="unknown option", ask=verb("plan", "--now"), code=2, says=("No such option", "--now"), usage=True),
    Case(name="wrong option", ask=verb("serve", "--port", "x"), code=2, says=("--port", "integer"), usage=True),
    Case(
        name="wrong template", ask=verb("init", "--template", "x", repo=False), code=2,
        says=("'--template': 'x' is not one of 'fraud'",), usage=True,
    ),
)  # fmt: skip
