"""One of two workers is killed under load: the other continues, it restarts, and every request is accounted for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.nightly.reliability.open_load import LOST, load, quantile_ms, statuses
from tests.nightly.worlds.served import LENIENT, STRICT, ServedProject, make_served, predictions, served
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.waiting import eventually

pytestmark = pytest.mark.soak
RATE, CONNECTIONS, KILLS = 300.0, 64, 3


def newcomers(server: ServedProject, before: set[int]) -> set[int]:
    return set(server.pids) - before


def test_workers_that_are_killed_come_back(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with running(Node(program("valkey"), tmp_path / "store")) as node:
        repo = make_served(tmp_path / "p", node.url)
        with served(repo, node.url, SKEWLESS_WORKERS="2") as server:
            server.until_calm()
            with load(server.url, predictions([LENIENT, STRICT]), rate=RATE, connections=CONNECTIONS) as sender:
                time.sleep(1)
                for _ in range(KILLS):
                    before = set(server.pids)
                    os.kill(min(before), signal.SIGKILL)
                    eventually(partial(newcomers, server, before))
                    time.sleep(4)
            counts = statuses(sender.replies)
            tell(f"{dict(counts)}, p99 {quantile_ms(sender.replies, 0.99):.1f} ms")
            assert (sender.hung, counts.keys() - {200, LOST}) == (0, set()), counts
            # Each kill may lose the one request that each connection of that worker has in progress.
            assert counts[LOST] <= KILLS * CONNECTIONS
            assert {reply.status for reply in sender.replies[-500:]} == {200}
            assert server.metric("skewless_worker_restarts_total") == KILLS
            assert len(server.pids) == 2
            assert server.prove() > 0
