"""A served project with a model for each policy on missing features, and what tests do to its server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from benchmarks.http_wire import body_of, post
from skewless.contract.clock import OffsetClock
from skewless.project import Project
from tests.nightly.reliability.open_load import TimedReply
from tests.servers.prediction import ROOT, PredictionServer
from tests.worlds.payments_data import TEMPLATE, write_sample
from tests.worlds.trained import NOW, ask
from tests.worlds.waiting import eventually

LENIENT, STRICT = "fraud", "strict"
_SERVE = "from skewless.cli import main; main()"
_STRICT = f'MODELS.append(replace(MODELS[0], name="{STRICT}", missing="refuse"))\n'


def make_served(repo: Path, redis_url: str) -> Path:
    """Write the template with two models, alike but for their policy, and train both."""
    shutil.copytree(TEMPLATE, repo, ignore=shutil.ignore_patterns("__pycache__"))
    models = repo / "models.py"
    models.write_text(
        models.read_text().replace("from datetime", "from dataclasses import replace\nfrom datetime") + _STRICT
    )
    write_sample(repo / "data", NOW)
    OffsetClock.create(repo / ".skewless/clock").set(NOW)
    with opened(repo, redis_url) as project:
        project.apply()
        project.materialize(check=False)
        for name in (LENIENT, STRICT):
            project.train(name)
    return repo


@contextmanager
def opened(repo: Path, redis_url: str) -> Iterator[Project]:
    """Open the project, its clock where the server's is."""
    with Project(repo, clock=f"file:{repo}/.skewless/clock", redis_url=redis_url, threads=1) as project:
        yield project


@dataclass(frozen=True, kw_only=True)
class ServedProject:
    """A server under test, with its log in a file."""

    server: PredictionServer
    repo: Path
    redis_url: str

    @property
    def url(self) -> str:
        """Its address."""
        return self.server.url

    @property
    def pids(self) -> list[int]:
        """The processes that answer: the server's own, or its workers."""
        pid = self.server.process.pid
        said = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(pid)],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        return [int(line.split()[0]) for line in said.stdout.splitlines() if "skewless.serving.workers" in line] or [
            pid
        ]

    def rss_mib(self) -> float:
        """Return the resident memory of all that answer."""
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in self.pids]
        return sum(int(text.split("VmRSS:")[1].split()[0]) for text in texts) / 1_024

    def metric(self, name: str) -> float:
        """Return the sum of all series of one name."""
        text = str(self.server.get("/metrics"))
        return sum(map(float, re.findall(rf"^{re.escape(name)}(?:{{[^\n]*}})? (\S+)$", text, re.MULTILINE)))

    def log(self) -> str:
        """Return what the server said on stderr."""
        return self.repo.joinpath("server.log").read_text()

    def until_calm(self) -> None:
        """Wait until predictions of both policies are answered again."""
        for model in (LENIENT, STRICT):
            eventually(partial(self.ask, model), _is_whole)

    def ask(self, model: str, **fields: Any) -> tuple[int, dict[str, str], str]:  # noqa: ANN401 - JSON
        """Return status, headers and text of the reply to one prediction."""
        return self.server.ask("POST", "/predict", orjson.dumps({"model": model, "rows": ask(1), **fields}))

    def check_log(self) -> None:
        """The server never showed a traceback."""
        assert "Traceback" not in self.log(), self.log()[-5_000:]

    def prove(self) -> int:
        """Stop the server, and have replay prove all that it logged; return how many predictions that was."""
        self.server.process.send_signal(signal.SIGTERM)
        assert self.server.process.wait(30) == 0, self.log()[-5_000:]
        self.check_log()
        with opened(self.repo, self.redis_url) as project:
            report = project.replay()
        assert report.ok, report.lines()
        assert report.different == 0
        return report.compared


@contextmanager
def served(
    repo: Path,
    redis_url: str,
    *,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    **settings: str,
) -> Iterator[ServedProject]:
    """Run a server for the length of a block.

    Args:
        repo: the project.
        redis_url: its online store.
        headers: of each request that the project sends.
        tls: of its connections.
        settings: variables of the server's environment.
    """
    environment = {
        **os.environ,
        "SKEWLESS_PORT": "0",
        "SKEWLESS_CLOCK": f"file:{repo}/.skewless/clock",
        "SKEWLESS_REDIS_URL": redis_url,
        **settings,
    }
    command = [sys.executable, "-c", _SERVE, "serve", "--repo", str(repo), "--json"]
    with (repo / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    with process:
        try:
            assert process.stdout is not None
            url = orjson.loads(process.stdout.readline())["url"]
            server = PredictionServer(process=process, url=url, repo=repo, headers=headers or {}, tls=tls)
            yield ServedProject(server=server, repo=repo, redis_url=redis_url)
        finally:
            process.kill()


def predictions(models: Sequence[str], n: int = 64, rows: int = 1, **fields: Any) -> list[bytes]:  # noqa: ANN401 - JSON
    """Return n requests, of the models in turn."""
    return [
        post("/predict", orjson.dumps({"model": models[i % len(models)], "rows": ask(rows, i), **fields}))
        for i in range(n)
    ]


def said(reply: TimedReply) -> dict[str, Any]:
    """Return the JSON of a reply."""
    body: dict[str, Any] = orjson.loads(body_of(reply.raw))
    return body


def _is_whole(seen: tuple[int, dict[str, str], str]) -> bool:
    return seen[0] == 200 and orjson.loads(seen[2])["degraded"] is False
