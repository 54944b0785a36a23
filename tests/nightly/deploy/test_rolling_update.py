"""Servers and definitions are replaced under load: no request fails, and each score is the right one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nightly.deploy.callers import CALLERS, Question, calling
from tests.nightly.deploy.gateways import KINDS, running_gateway
from tests.nightly.deploy.replicas import Replicas, replicas
from tests.servers.prediction import MAIN, ROOT
from tests.worlds.edits import edit
from tests.worlds.trained import MODEL, Sandbox, ask, opened_copy
from tests.worlds.waiting import until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1_500)]
_ROWS = 60
_PAUSE_S = 0.3  # so that commands, which use only idle time, get some
_SCHEMA = "infra/platform/storage/schema.py"


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the oldest release that can share a database with this one."""
    commit = _git("log", "-1", "--format=%H", "--", _SCHEMA).decode().strip()
    if not commit:
        pytest.skip("this folder has no history of git, so no previous release")
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commit))) as archive:
        archive.extractall(folder, filter="tar")
    return folder


def _git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False).stdout  # noqa: S607


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Iterator[Sandbox]:
    with opened_copy(trained, tmp_path / "p") as place:
        yield place


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def change_definitions(place: Sandbox) -> None:
    """Change a view and the model, and bring both into use with the commands of this release."""
    edit(place.repo, 'name="payments_7d", dtype=Int64', 'name="payments_7d", dtype=Float64')
    edit(place.repo, '"num_leaves": 15', '"num_leaves": 14', file="models.py")
    for verb in ("apply", "materialize", "train"):
        run(place, verb)


def run(place: Sandbox, verb: str) -> None:
    variables = {"SKEWLESS_CLOCK": f"file:{place.repo}/.skewless/clock"}
    command = [sys.executable, "-c", MAIN, verb, "--repo", str(place.repo), "--json"]
    said = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, (verb, said.stdout, said.stderr)


def replace_all(servers: Replicas, code: Path) -> None:
    """Replace the servers by those of another release, one after the other."""
    servers.code = code
    for n in range(3):
        servers.replace(n)


def learn_scores(place: Sandbox, questions: list[Question], version: str) -> None:
    """Let the questions know the scores of the champion, which this process computes without a server."""
    table = place.project.predict(MODEL, ask(len(questions)))
    for question, score in zip(questions, table["score"].to_pylist(), strict=True):
        question.scores[version] = score


def test_servers_and_definitions_change_under_load(
    place: Sandbox, previous: Path, kind: str, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    with replicas(place, previous) as servers, running_gateway(kind, tmp_path, servers.ports) as gateway:
        until(lambda: gateway.ask("GET", "/health/ready")[0] == 200)
        questions = servers.questions(_ROWS)
        learn_scores(place, questions, "000001")
        with calling(gateway, questions, _PAUSE_S) as callers:
            replace_all(servers, ROOT)
            change_definitions(place)
            learn_scores(place, questions, "000002")
            until(lambda: callers.versions["000002"] > 10 * CALLERS)
            replace_all(servers, previous)
            replace_all(servers, ROOT)
        servers.stop_all()  # which writes the rest of the log
        callers.judge_unknown()
    assert callers.failures == []
    assert set(callers.versions) == {"000001", "000002"}
    assert any(question.scores["000001"] != question.scores["000002"] for question in questions)
    report = place.project.replay()
    assert report.ok, report.lines()
    # Each reply is in the log, and each request without a gateway; a repeated one may be there twice.
    assert report.compared >= callers.answered + len(questions)
    tell(
        f"{kind}: {dict(callers.versions)} right, 0 failed; slowest {callers.slowest_s:.2f} s; replay {report.compared}"
    )
