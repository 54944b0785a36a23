"""A full prediction from entity ids over HTTP against an empty FastAPI + pydantic endpoint; one connection each."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.result import Result, in_turn
from infra.sample import write_sample
from skewless import Project

REQUESTS = 300
_EMPTY = """
import sys, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
class Ask(BaseModel):
    card_id: int
    shop_id: str
    amount: float
    paid_at: int
app = FastAPI()
@app.post("/predict")
async def predict(ask: Ask) -> dict[str, float]:
    return {"score": 0.5}
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, timeout_keep_alive=600)
"""
_SERVE = """
import sys
from skewless import Project
from serving.server import run_server
run_server(Project(sys.argv[1], port=0).server_config(), lambda url: print(url, flush=True))
"""


def run() -> list[Result]:
    """Ask 300 times for one row of the sample project."""
    with tempfile.TemporaryDirectory() as folder:
        project, row = _project(Path(folder) / "payments")
        ours = subprocess.Popen([sys.executable, "-c", _SERVE, str(project.repo)], stdout=subprocess.PIPE, text=True)
        port = _free_port()
        empty = subprocess.Popen([sys.executable, "-c", _EMPTY, str(port)])
        try:
            assert ours.stdout is not None
            own = http.client.HTTPConnection(ours.stdout.readline().strip().removeprefix("http://"))
            peer = http.client.HTTPConnection("127.0.0.1", port)
            _wait(port)
            first = _ask(own, {"rows": [row]})["predictions"][0]["score"]
            assert first == project.predict(None, [row])["score"][0].as_py()
            seconds, ratio = in_turn(
                lambda: [_ask(own, {"rows": [row]}) for _ in range(REQUESTS)],
                lambda: [_ask(peer, row) for _ in range(REQUESTS)],
            )
        finally:
            for process in (ours, empty):
                process.terminate()
                process.wait(20)
            project.close()
    name = "serving: one prediction over HTTP, concurrency 1"
    return [Result(name=name, value=seconds / REQUESTS * 1e3, unit="ms", against="empty FastAPI endpoint", ratio=ratio)]


def _project(repo: Path) -> tuple[Project, dict[str, object]]:
    shutil.copytree(Path(__file__).parents[1] / "skewless" / "template", repo)
    write_sample(repo / "data", time.time_ns() // 1_000)
    project = Project(repo)
    project.apply()
    project.materialize()
    project.train("fraud")
    row = {"card_id": 9_007_199_254_740_993, "shop_id": "shop-07", "amount": 12.5, "paid_at": 1_700_000_000_000_000}
    return project, row


def _ask(connection: http.client.HTTPConnection, body: object) -> dict[str, list[dict[str, float]]]:
    connection.request("POST", "/predict", json.dumps(body), {"Content-Type": "application/json"})
    answer: dict[str, list[dict[str, float]]] = json.loads(connection.getresponse().read())
    return answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    msg = "the empty endpoint did not start"
    raise TimeoutError(msg)
