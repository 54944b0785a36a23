"""The failures of docs/on-call.md that need programs of their own: stream worker, model, certificate and clock."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from skewless.contract.clock import OffsetClock
from skewless.infra.platform.host.processes import read_processes
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.training.train import train
from tests.nightly.deploy.on_call import OnCall
from tests.nightly.worlds.certificates import write_certificate
from tests.servers.node import Node
from tests.servers.prediction import MAIN, ROOT, PredictionServer
from tests.worlds.command_line import done
from tests.worlds.rollouts import NEW
from tests.worlds.trained import MODEL, NOW, ask, copy_project, opened
from tests.worlds.waiting import eventually
from tests.worlds.windowed import trained_repo

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]
_FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def prepared(repo: Path, node: Node, settings: str = "") -> Path:
    """Write the settings of a copied project, with its clock in a file, and fill its online store."""
    with (repo / "skewless.yaml").open("a") as file:
        file.write(f"\nclock: file:clock\nredis_url: {node.url}\nport: 0\nthreads: 1\n{settings}")
    OffsetClock.create(repo / "clock").set(NOW)
    done("materialize", "--repo", repo)
    return repo


def predict(server: PredictionServer) -> int:
    """Return the status of one prediction."""
    return server.ask("POST", "/predict", orjson.dumps({"model": MODEL, "rows": ask(1)}))[0]


@contextmanager
def streaming(repo: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a stream worker until it has sent a heartbeat, and for the block."""
    command = [sys.executable, "-c", MAIN, "stream", "--repo", str(repo)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet) as process:
        try:
            eventually(lambda: process.pid in {item.pid for item in read_processes(ProjectState(repo / ".skewless"))})
            yield process
        finally:
            process.kill()


def test_a_stream_worker_is_gone(tmp_path: Path) -> None:
    title = "6. A stream worker is gone"
    repo = trained_repo(tmp_path / "air", "port: 0\n")
    (repo / "clock").unlink()
    (repo / "skewless.yaml").write_text("threads: 1\nport: 0\n")
    on_call = OnCall(repo=repo)
    with streaming(repo) as process:
        process.kill()
    on_call.sees(title)
    with streaming(repo) as process:
        on_call.is_over(title)
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_a_bad_model_was_promoted(trained: Path, tmp_path: Path, valkey: Node) -> None:
    title = "8. A bad model was promoted"
    repo = copy_project(trained, tmp_path / "p")
    with opened(repo) as place:
        spec, dataset = place.project.applied.model(MODEL), place.project.training_set(MODEL)
        train(dataset, replace(spec, rounds=7), place.project.store, threads=1, now_us=place.now_us())
    prepared(repo, valkey)
    kept = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    command = [sys.executable, "-m", "tests.integration.operations.faulty_server", str(repo)]
    with subprocess.Popen(
        command, cwd=ROOT, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            server = PredictionServer(process=process, url=json.loads(process.stdout.readline())["url"])
            assert predict(server) == 200
            done("promote", MODEL, NEW, "--repo", repo)
            eventually(lambda: server.get(f"/models/{MODEL}")["version"] == NEW)
            (repo / "fault").write_text("fails")
            assert predict(server) == 500
            on_call = OnCall(repo=repo, server=server)
            on_call.sees(title)
            done("rollback", MODEL, "--repo", repo)
            on_call.is_over(title)
        finally:
            process.kill()


def test_the_certificate_ends(trained: Path, tmp_path: Path, valkey: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    title = "10. The certificate ends"
    write_certificate(tmp_path, 5)
    names = f"tls_cert: {tmp_path}/server.crt\ntls_key: {tmp_path}/server.key\n"
    repo = prepared(copy_project(trained, tmp_path / "p"), valkey, names)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.crt"))
    server = PredictionServer.start(repo)
    on_call = OnCall(repo=repo, server=server)
    on_call.sees(title)
    assert 4 < (expires(server) - time.time()) / 86_400 < 5
    write_certificate(tmp_path, 400)
    on_call.is_over(title)
    assert 399 < (eventually(lambda: expires(server)) - time.time()) / 86_400 < 400
    server.stop()


def expires(server: PredictionServer) -> float:
    """Return the end of the certificate, from the metric; 0: the server has not read the new one yet."""
    address = urlsplit(server.url).netloc
    with closing(HTTPSConnection(address, context=ssl.create_default_context(), timeout=20)) as connection:
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        except ssl.SSLError:
            return 0.0
    return float(next(line for line in lines if line.startswith("skewless_certificate_expires_seconds ")).split()[1])


def test_a_clock_is_wrong(trained: Path, tmp_path: Path, valkey: Node) -> None:
    if not _FAKETIME.exists():
        pytest.skip("no libfaketime on this machine: `apt-get install faketime` brings it")
    title = "12. A clock is wrong"
    repo = prepared(copy_project(trained, tmp_path / "p"), valkey)
    (tmp_path / "time").write_text("+30s\n")
    wrong = {
        "LD_PRELOAD": str(_FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "time"),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    server = PredictionServer.start(repo, **wrong)
    on_call = OnCall(repo=repo, server=server, environment=wrong)
    on_call.sees(title)
    (tmp_path / "time").write_text("+0s\n")
    on_call.is_over(title)
    server.stop()
