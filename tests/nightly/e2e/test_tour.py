"""The README's tour, typed as it stands there, in a folder of its own; its output has the shape that is shown."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from skewless.infra.reads.online.private_server import PrivateServer
from tests.docs.pages import ROOT, Step, blocks, page, section, steps

PORT = "8080"
PROJECT = "my-project"
SHAPES = (
    (r"unix://\S+", "unix://SOCKET"),
    (rf"/\S*/{PROJECT}", f"/{PROJECT}"),
    (r"\d{4}-\d\d-\d\d[T ][\d:.]+(\+00:00|Z)", "TIME"),
    (r"-?\d[\d,]*\.\d+(e-?\d+)?", "NUMBER"),
    (r"\b[0-9a-f]{11}-[0-9a-f]{8}-[0-9a-f]+\b", "PREDICTION"),
    (r"\b[0-9a-f]{12,}\b", "HASH"),
    (r"-?\d[\d,]*", "NUMBER"),
    (r"─+", "─"),
    (r"\b(prediction|vector)s\b", r"\1"),  # the server may have logged its own by then
    (r" +", " "),
    (r"\s*\n\s*", "\n"),
)


@dataclass(frozen=True)
class Tour:
    """The walk, as far as it went.

    Args:
        said: what each step wrote to stdout.
    """

    folder: Path
    environment: dict[str, str]
    port: str
    said: list[tuple[Step, str]] = field(default_factory=list)

    def run(self, *words: str) -> str:
        """Run a program in the tour's folder; it must succeed. Return its output."""
        done = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def here(self, text: str) -> str:
        """Return a text of the README with the port of this run."""
        return text.replace(f":{PORT}", f":{self.port}")


def shape(text: str) -> str:
    """Return a text with numbers, times, hashes, paths and widths made alike."""
    text = text.strip() + "\n"
    for pattern, name in SHAPES:
        text = re.sub(pattern, name, text)
    return text


def expected(shown: str) -> re.Pattern[str]:
    """Return what an output must match: a line ``...`` stands for any lines, ``...`` inside one for anything."""
    lines = [r"(?:.*\n)*?" if line == "..." else inside(line) + r"\n" for line in shape(shown).splitlines()]
    return re.compile("".join(lines))


def inside(line: str) -> str:
    """Return one line as a pattern."""
    return ".*".join(map(re.escape, line.split("...")))


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    """The tour after its last step, its server still running; that must end cleanly."""
    folder = tmp_path_factory.mktemp("tour")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SKEWLESS_", "PROMETHEUS_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    walk = Tour(folder=folder, environment=kept | {"PATH": path, "SKEWLESS_PORT": port, "COLUMNS": "160"}, port=port)
    servers: list[subprocess.Popen[str]] = []
    try:
        for step in steps(section((ROOT / "README.md").read_text(encoding="utf-8"), "A first tour")):
            walk.said.append((step, take(walk, step, servers)))
        yield walk
    finally:
        codes = [stop(server) for server in servers]
        PrivateServer(folder / PROJECT / ".skewless").stop()
    assert codes == [0]


def take(walk: Tour, step: Step, servers: list[subprocess.Popen[str]]) -> str:
    """Take one step; a server goes on running."""
    if not step.command.startswith("skewless serve"):
        return walk.run("sh", "-c", walk.here(step.command))
    server = subprocess.Popen(
        step.command.split(), cwd=walk.folder, env=walk.environment, stdout=subprocess.PIPE, text=True
    )
    servers.append(server)
    assert server.stdout is not None
    return "".join(server.stdout.readline() for _ in step.shown.splitlines())


def stop(server: subprocess.Popen[str]) -> int:
    """Stop a server as Ctrl-C would; return its exit code."""
    server.send_signal(signal.SIGINT)
    code = server.wait(30)
    if server.stdout is not None:
        server.stdout.close()
    return code


def test_every_step_says_what_the_readme_shows(tour: Tour) -> None:
    odd = [
        f"$ {step.command}\n--- shown\n{shape(step.shown)}--- said\n{shape(said)}"
        for step, said in tour.said
        if not expected(step.shown).fullmatch(shape(said))
    ]
    assert odd == [], "\n".join(odd)


def test_the_tour_takes_the_verbs_that_a_project_needs(tour: Tour) -> None:
    verbs = [step.command.split()[1] for step, _ in tour.said if step.command.startswith("skewless ")]
    wanted = ["init", "plan", "apply", "validate", "import", "materialize", "train", "stream", "predict", "serve"]
    wanted += ["replay", "status"]
    assert verbs == wanted


def test_one_row_has_one_score_on_the_command_line_and_over_http(tour: Tour) -> None:
    (typed,) = [said for step, said in tour.said if step.command.startswith("skewless predict")]
    served = json.loads(next(said for step, said in tour.said if step.command.startswith("curl")))
    assert f" {served['predictions'][0]['score']!r} " in typed


def test_the_page_on_python_runs_as_it_stands(tour: Tour) -> None:
    clients = blocks(page("client.md"), "python") + blocks(section(page("serving.md"), "A small client"), "python")
    code = "\n".join((*blocks(page("python.md"), "python"), *clients, "print(reply.model)"))
    said = tour.run(sys.executable, "-c", tour.here(code))
    assert "all equal, bit for bit" in said
    assert said.splitlines()[-1] == "fraud"


def test_everything_that_was_predicted_is_proven(tour: Tour) -> None:
    proof = json.loads(tour.run("skewless", "replay", "--repo", PROJECT, "--json"))
    assert (proof["ok"], proof["different"]) == (True, 0)
    assert proof["compared"] >= 2


def test_the_state_folder_holds_what_is_documented(tour: Tour) -> None:
    layout = blocks(section(page("operations.md"), "The state folder"), "text")[0]
    patterns = [as_pattern(line.split()[0]) for line in layout.splitlines()]
    state = tour.folder / PROJECT / ".skewless"
    files = [path.relative_to(state).as_posix() for path in state.rglob("*") if not path.is_dir()]
    assert len(files) > 20
    assert [name for name in files if not any(pattern.fullmatch(name) for pattern in patterns)] == []


def as_pattern(name: str) -> re.Pattern[str]:
    """Return a documented name as a pattern: a word in capitals is any part, ``*`` is any path."""
    return re.compile(re.sub(r"[A-Z]+", r"[^/]+", re.escape(name).replace(r"\*", ".*")))
