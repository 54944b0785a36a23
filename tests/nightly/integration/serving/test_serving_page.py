"""The sessions of docs/serving.md, typed as they stand there, against a server with two versions of a model."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import page, steps
from tests.servers.prediction import PredictionServer
from tests.worlds.trained import opened_copy, serving

SHOWN = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def repo(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with opened_copy(trained, tmp_path_factory.mktemp("page") / "p") as place:
        place.train()
        yield place.repo


def load(server: PredictionServer, body: bytes = b"") -> None:
    assert server.ask("POST", "/v2/repository/models/fraud/load", body)[0] == 200


def open_versions(server: PredictionServer) -> list[list[str]]:
    """Return the versions that answer, of each model."""
    return [model["versions"] for model in server.get("/models")["models"]]


def test_every_step_answers_as_it_is_shown(repo: Path) -> None:
    session = steps(page("serving.md"))
    assert len(session) > 5
    with serving(repo) as server:
        for step in session:
            words = shlex.split(step.command.replace(SHOWN, server.url))
            said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout
            assert re.fullmatch(".*".join(map(re.escape, step.shown.strip().split("..."))), said), (step, said)


def check_unknown_versions(server: PredictionServer) -> None:
    """What nobody trained cannot be loaded."""
    for path, known in (("nobody", "fraud"), ("fraud", "000001, 000002")):
        status, _, text = server.ask("POST", f"/v2/repository/models/{path}/load", b'{"parameters": {"version": "9"}}')
        assert (status, text.endswith(f'Fix: use one of: {known}"}}')) == (404, True), text


@pytest.mark.soak  # in make test, test_model_table.py loads the table of models anew
def test_what_was_asked_for_outlasts_a_restart_and_older_champions_do_not(repo: Path) -> None:
    with serving(repo) as server:
        check_unknown_versions(server)
        load(server)
        server.ask("POST", "/models/fraud/rollback")
        server.ask("POST", "/models/fraud/rollback")
        assert open_versions(server) == [["000001", "000002"]]
    with serving(repo) as server:
        assert open_versions(server) == [["000002"]]
        load(server, b'{"parameters": {"version": "1"}}')
    with serving(repo) as server:
        assert open_versions(server) == [["000001", "000002"]]
        assert server.ask("POST", "/v2/repository/models/fraud/unload")[0] == 200
    with serving(repo) as server:
        assert open_versions(server) == []
        status, _, text = server.ask("POST", "/predict", b'{"rows": [{}]}')
        assert (status, "load a model: none is served now" in text) == (404, True)
        load(server)
