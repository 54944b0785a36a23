"""Servers under measurement run on their core, are counted, and are gone afterwards."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from benchmarks.contestant import ContestantError
from benchmarks.cores import cores, pin_redis
from benchmarks.http_load import closed_loop
from benchmarks.http_wire import post
from benchmarks.served import Server, peer_server, running
from benchmarks.server import own_server

ASK = post("/predict", b'{"rows": [{"card_id": 1, "shop_id": "a"}]}')


def test_a_server_has_its_core_for_itself_and_is_gone_afterwards() -> None:
    where = cores()
    with running(peer_server("empty", name="empty", first=ASK), where.server) as server:
        assert os.sched_getaffinity(server.pid) == {where.server}
        before = server.cpu_seconds()
        measured = closed_loop(server.address, [ASK], concurrency=4, seconds=0.2)
        assert measured.failed == 0
        assert 0 < server.cpu_seconds() - before < 2 * measured.seconds
        assert 10_000_000 < server.resident_bytes() < 1_000_000_000
        assert 0 < server.ready_seconds < 60
    with socket.socket() as probe:
        assert probe.connect_ex((server.address.host, server.address.port)) != 0
    assert not Path(f"/proc/{server.pid}").exists()


@pytest.mark.parametrize(
    ("code", "told", "start_s"),
    [("raise SystemExit('planted')", "planted", 60.0), ("import time; time.sleep(60)", "does not answer", 0.5)],
)
def test_a_server_that_does_not_answer_is_an_error_with_its_words(code: str, told: str, start_s: float) -> None:
    server = Server(name="broken", command=(sys.executable, "-c", code), first=ASK, start_s=start_s)
    with pytest.raises(ContestantError, match=told), running(server, cores().server):
        pass


def test_the_port_stands_in_command_and_environment() -> None:
    code = "import os, sys; raise SystemExit(f'{sys.argv[1] == os.environ[\"PLACE\"]} {sys.argv[1].isdigit()}')"
    command = (sys.executable, "-c", code, "{port}")
    server = Server(name="told", command=command, first=ASK, environment={"PLACE": "{port}"})
    with pytest.raises(ContestantError, match="True True"), running(server, cores().server):
        pass


def test_redis_is_moved_to_a_core() -> None:
    where = cores()
    with own_server() as url:
        pin_redis(url, where.load)
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _listens(path, url)]
        assert [os.sched_getaffinity(pid) for pid in pids] == [{where.load}]


def _listens(process: Path, url: str) -> bool:
    port = url.rpartition(":")[2].partition("/")[0]
    try:
        return f":{port}" in (process / "cmdline").read_text() and "-server" in (process / "comm").read_text()
    except OSError:
        return False
