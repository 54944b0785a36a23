"""Other people's clients work unchanged: the sessions of docs/oip.md, some odd ones, and what OpenAPI promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import blocks, page, section
from tests.servers.prediction import PredictionServer

HERE = Path(__file__).parent
ADDRESS, GRPC_ADDRESS = "127.0.0.1:8080", "127.0.0.1:8081"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
CONFIG = """
[parameters]
"path.name" = "fraud"
"path.version" = "1"

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 504]
"""  # 504: the example, which is answered, with a time limit of a microsecond
PATIENCE_S = 100


def run(python: str, *words: str, cwd: Path) -> str:
    """Run a program of the clients' environment; return what it said."""
    environment = {name: value for name, value in os.environ.items() if name.isupper() and "PYTHON" not in name}
    done = subprocess.run(
        [python, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


SESSIONS = {
    "With tritonclient": 40,
    "With KServe's client": 20,
    "gRPC": 30,
    "gRPC with KServe's client": 10,
}
ODD = sorted(path.name for path in HERE.glob("*.pycon"))
# The failed lines of each session, and what it said.
PLAY = """
import contextlib, doctest, io, json, sys
results = {}
for name in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        played = doctest.testfile(name, module_relative=False, optionflags=doctest.ELLIPSIS, encoding="utf-8")
    results[name] = played.failed, said.getvalue()
print(json.dumps(results))
"""


def session_of_docs(title: str) -> str:
    return "\n".join(blocks(section(page("oip.md"), title), "pycon"))


@pytest.fixture(scope="module")
def played(
    foreign: str, server: PredictionServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[int, str]]:
    """The failed lines of each session, and what it said.

    A process for each library, whose import takes a second; together they would declare the same messages twice.
    """
    folder = tmp_path_factory.mktemp("sessions")
    texts = {title: session_of_docs(title) for title in SESSIONS}
    texts |= {name: (HERE / name).read_text(encoding="utf-8") for name in ODD}
    for name, text in texts.items():
        script = text.replace(ADDRESS, server.url.removeprefix("http://")).replace(GRPC_ADDRESS, server.grpc_address)
        (folder / name).write_text(script, encoding="utf-8")
    results: dict[str, tuple[int, str]] = {}
    for is_of_kserve in (False, True):
        names = [name for name in texts if ("KServe" in name) is is_of_kserve]
        results |= json.loads(run(foreign, "-c", PLAY, *names, cwd=folder).splitlines()[-1])
    return results


@pytest.mark.parametrize(("title", "lines"), SESSIONS.items())
def test_the_sessions_of_the_docs(title: str, lines: int, played: dict[str, tuple[int, str]]) -> None:
    session = session_of_docs(title)
    assert session.count(">>>") + session.count("...") > lines
    failed, said = played[title]
    assert failed == 0, said


@pytest.mark.parametrize("name", ODD)
def test_odd_sessions(name: str, played: dict[str, tuple[int, str]]) -> None:
    failed, said = played[name]
    assert failed == 0, said


@pytest.mark.parametrize("examples", [1, pytest.param(10, marks=pytest.mark.soak)])  # beside those that cover a schema
def test_every_route_answers_as_the_openapi_document_says(
    foreign: str, server: PredictionServer, tmp_path: Path, examples: int
) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    options = [
        *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
        *("--max-examples", str(examples), "--seed", "1", "--generation-database", "none"),
        *("--exclude-path", "/v2/repository/models/{name}/unload"),
    ]
    said = run(
        foreign,
        *("-m", "schemathesis.cli", "--no-color", "run", f"{server.url}/openapi.json", *options),
        cwd=tmp_path,
    )
    assert "/v2/models/{name}/infer" in server.get("/openapi.json")["paths"]
    passed = re.search(r"(\d+) generated, (\d+) passed", said)
    assert passed is not None, said
    assert passed[1] == passed[2]
    assert int(passed[1]) > 300
