"""``skewless serve --workers``: real processes, killed and stopped while clients ask."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import open_prediction_log
from skewless.project import Project
from tests.servers.prediction import PredictionServer, refused_start
from tests.worlds.trained import ask, copy_project, opened_copy
from tests.worlds.waiting import PATIENCE_S, eventually

BODY = json.dumps({"rows": ask(2)}).encode()


@pytest.fixture(scope="module")
def repo(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A trained project, whose private server stays for all tests."""
    with opened_copy(trained, tmp_path_factory.mktemp("workers") / "p") as place:
        yield place.repo


@pytest.fixture
def own_repo(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project on the same store."""
    with Project(repo) as project:
        monkeypatch.setenv("SKEWLESS_REDIS_URL", project.redis_url)
    return copy_project(repo, tmp_path / "p")


@contextmanager
def running(repo: Path, **settings: str) -> Iterator[PredictionServer]:
    """Start a server, of two workers if no setting says otherwise; what is left of it ends with the block."""
    given = {"SKEWLESS_PORT": "0", "SKEWLESS_WORKERS": "2", "SKEWLESS_CLOCK": f"file:{repo}/.skewless/clock"}
    server = PredictionServer.start(repo, **{**given, **settings})
    with server.process:
        try:
            yield server
        finally:
            server.process.kill()


@pytest.fixture(scope="module")
def server(repo: Path) -> Iterator[PredictionServer]:
    """A server that tests may ask, and kill workers of."""
    with running(repo) as server:
        yield server


@dataclass
class AskingThread(threading.Thread):
    """Asks for predictions, one connection each, until told to stop; counts what it got."""

    url: str
    replies: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    refused: int = 0
    done: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        while not self.done.is_set():
            connection = HTTPConnection(urlsplit(self.url).netloc, timeout=20)
            try:
                connection.connect()
            except OSError:
                self.refused += 1
                time.sleep(0.01)
                continue
            try:
                connection.request("POST", "/predict", BODY, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                reply.read()
                self.replies[reply.status] += 1
            except (OSError, HTTPException) as error:
                self.lost.append(repr(error))
            finally:
                connection.close()


@contextmanager
def load(url: str, n: int) -> Iterator[list[AskingThread]]:
    """Let clients ask meanwhile; they have all had replies before it begins."""
    clients = [AskingThread(url) for _ in range(n)]
    for client in clients:
        client.start()
    eventually(lambda: all(client.replies[200] > 5 for client in clients))
    try:
        yield clients
    finally:
        for client in clients:
            client.done.set()
        for client in clients:
            client.join(30)


def workers_of(server: PredictionServer) -> list[int]:
    said = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(server.process.pid)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(line.split()[0]) for line in said.stdout.splitlines() if "skewless.serving.workers" in line]


def value(text: str, name: str) -> float:
    """Return the sum of all series of one name; there are none before the first count."""
    return sum(map(float, re.findall(rf"^{re.escape(name)}(?:{{[^\n]*}})? (\S+)$", text, re.MULTILINE)))


def logged(repo: Path) -> int:
    """Return the number of logged predictions; those that no server has shipped are among them."""
    return sum(segment.rows for segment in open_prediction_log(ProjectState(repo / ".skewless")).segments())


def test_a_worker_that_is_killed_comes_back_while_the_other_answers(server: PredictionServer) -> None:
    before = workers_of(server)
    assert len(before) == 2
    with load(server.url, 2) as clients:
        os.kill(before[0], signal.SIGKILL)
        at_the_kill = [client.replies[200] for client in clients]
        after = eventually(lambda: workers_of(server), lambda pids: len(pids) == 2 and before[0] not in pids)
        metrics = eventually(
            lambda: str(server.get("/metrics")), lambda text: value(text, "skewless_worker_restarts_total") == 1
        )
    assert before[1] in after
    for client, then in zip(clients, at_the_kill, strict=True):
        assert client.replies[200] > then
        assert len(client.lost) <= 2  # those that the killed worker had taken
        assert (set(client.replies), client.refused) == ({200}, 0)
    assert re.findall(r'skewless_queue_depth{worker="(\d)"}', metrics) == ["0", "1"]


def test_any_worker_tells_the_metrics_of_all(server: PredictionServer) -> None:
    names = ("skewless_predictions_total", "skewless_request_seconds_count", "skewless_workers_unanswered_total")
    before = [value(str(server.get("/metrics")), name) for name in names]
    with load(server.url, 3) as clients:
        pass
    asked = sum(client.replies[200] for client in clients)
    for _ in range(6):  # whichever worker answers
        found = [value(str(server.get("/metrics")), name) for name in names]
        assert [now - then for now, then in zip(found, before, strict=True)] == [2 * asked, asked, 0]


def test_server_json_says_where_the_server_is(server: PredictionServer, repo: Path) -> None:
    noted = json.loads((repo / ".skewless/server.json").read_text())
    assert noted == {"url": server.url, "pid": server.process.pid, "workers": 2}


def test_sigterm_loses_no_request_and_no_log_row(own_repo: Path) -> None:
    before = logged(own_repo)
    with running(own_repo) as server:
        with load(server.url, 4) as clients:
            server.stop()
        assert [client.lost for client in clients] == [[]] * 4
        assert {status for client in clients for status in client.replies} == {200}
        assert logged(own_repo) - before == 2 * sum(client.replies[200] for client in clients)
        assert not (own_repo / ".skewless/server.json").exists()


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.soak)])
def test_while_it_drains_it_answers_and_is_not_ready(own_repo: Path, workers: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{uuid4().hex}")
        manager.settimeout(PATIENCE_S)
        name = f"@{manager.getsockname()[1:].decode()}"
        with running(own_repo, SKEWLESS_WORKERS=workers, SKEWLESS_DRAIN_SECONDS="60", NOTIFY_SOCKET=name) as server:
            assert manager.recv(100) == b"READY=1"
            server.process.send_signal(signal.SIGTERM)
            assert manager.recv(100) == b"STOPPING=1"
            eventually(lambda: server.ask("GET", "/health/ready"), lambda said: said[0] == 503)
            # The other worker may get the signal later.
            replies = eventually(
                lambda: [server.ask("POST", "/predict", BODY) for _ in range(4)],
                lambda replies: all(headers.get("connection") == "close" for _, headers, _ in replies),
            )
            assert {status for status, *_ in replies} == {200}
            server.stop()  # the second signal


def test_workers_end_with_their_supervisor(own_repo: Path) -> None:
    with running(own_repo) as server:
        pids = workers_of(server)
        server.process.kill()
        server.process.wait()
        eventually(lambda: [pid for pid in pids if Path(f"/proc/{pid}").exists()], lambda left: not left)


def test_a_server_that_cannot_start_says_why_and_is_gone(own_repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_WORKERS", "2")
    monkeypatch.setenv("SKEWLESS_PORT", "0")
    (own_repo / ".skewless/packages").rename(own_repo / "elsewhere")
    code, said = refused_start(own_repo)
    assert (code, json.loads(said)["error"]["problem"]) == (8, "has no champion to serve")


def test_a_port_in_use_is_refused(own_repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_WORKERS", "2")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("SKEWLESS_PORT", str(port))
        code, said = refused_start(own_repo)
    assert (code, json.loads(said)["error"]["thing"]) == (10, f"address 127.0.0.1:{port}")
