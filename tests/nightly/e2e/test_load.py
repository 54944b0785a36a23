"""A server under load from several connections: every answer right, none lost, memory bounded."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skewless import Project
from skewless.client import Client
from tests.worlds.payments_data import TEMPLATE, write_sample

ROOT = Path(__file__).parents[3]
SERVE = """
import sys
from skewless import Project
from skewless.serving.process import run_server
run_server(Project(sys.argv[1], port=0).server_config(), lambda url: print(url, flush=True))
"""
CONNECTIONS, SECONDS = 4, 30.0
ROWS = [
    {"card_id": 9_007_199_254_740_993 + i, "shop_id": f"shop-{i % 45:02d}", "amount": 1.5 * i, "paid_at": 10**15 + i}
    for i in range(320)
]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    repo = tmp_path / "payments"
    shutil.copytree(TEMPLATE, repo)
    write_sample(repo / "data", time.time_ns() // 1_000)
    project = Project(repo, threads=1)
    project.apply()
    project.materialize(check=False)
    project.train("fraud")
    return project


def ask(url: str, expected: dict[int, float], first: int) -> int:
    """Ask batches of rows without pause; return how many rows were answered."""
    client, answered = Client(url), 0
    deadline = time.monotonic() + SECONDS
    at = first
    while time.monotonic() < deadline:
        chosen = [(at + step) % len(ROWS) for step in range(1 + at % 7)]
        reply = client.predict([ROWS[i] for i in chosen])
        assert reply.scores == [expected[i] for i in chosen]
        answered += len(chosen)
        at += len(chosen)
    client.close()
    return answered


def resident_mib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) // 1024


@pytest.mark.soak
def test_soak_every_answer_under_load_is_right_and_proven(project: Project) -> None:
    expected = dict(enumerate(project.predict("fraud", ROWS)["score"].to_pylist()))
    command = [sys.executable, "-c", SERVE, str(project.repo)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                asked = [pool.submit(ask, url, expected, 80 * i) for i in range(CONNECTIONS)]
                time.sleep(SECONDS / 3)
                early = resident_mib(server.pid)
                answered = sum(one.result() for one in asked)
            late = resident_mib(server.pid)
        finally:
            server.terminate()
            assert server.wait(60) == 0
    report = project.replay()
    project.close()
    assert (report.compared, report.different) == (answered + len(ROWS), 0)
    assert late < early + 100, f"{early} MiB after a third of the time, {late} MiB at the end"
