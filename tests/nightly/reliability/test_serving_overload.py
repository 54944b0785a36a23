"""Twice as much as the server can answer, for a minute: what it takes it answers soon, the rest it refuses soon."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.http_load import Address, closed_loop
from tests.nightly.reliability.open_load import TimedReply, load, quantile_ms, statuses
from tests.nightly.worlds.served import LENIENT, STRICT, ServedProject, make_served, predictions, said, served
from tests.servers.node import Node, running
from tests.servers.programs import program

pytestmark = pytest.mark.soak
CONNECTIONS = 2_000
REQUESTS = predictions([LENIENT, STRICT], rows=20)  # heavy enough for the load to leave the server a core
SECONDS, CALM_S = 60.0, 10.0
GROWTH_MIB = 96.0
TIMES, LEAST_MS = 10.0, 200.0  # the machine may be shared


@pytest.fixture
def served_project(tmp_path: Path) -> Iterator[ServedProject]:
    with running(Node(program("valkey"), tmp_path / "store")) as node:
        repo = make_served(tmp_path / "p", node.url)
        with served(repo, node.url) as served_project:
            served_project.until_calm()
            yield served_project


def capacity(served_project: ServedProject) -> float:
    """Return how many requests a second the server answers when always asked."""
    address = Address(port=urlsplit(served_project.url).port or 0)
    closed_loop(address, REQUESTS, concurrency=32, seconds=2)
    return float(closed_loop(address, REQUESTS, concurrency=32, seconds=5).rate)


def asked(served_project: ServedProject, rate: float, seconds: float) -> list[TimedReply]:
    with load(served_project.url, REQUESTS, rate=rate, connections=CONNECTIONS) as sender:
        time.sleep(seconds)
    assert sender.hung == 0
    return sender.replies


def told(replies: Sequence[TimedReply], seconds: float) -> str:
    parts = [f"{len(replies) / seconds:.0f}/s {dict(statuses(replies))}"]
    for status in sorted(statuses(replies)):
        same = [reply for reply in replies if reply.status == status]
        parts.append(f"{status}: p50 {quantile_ms(same, 0.5):.1f}, p99 {quantile_ms(same, 0.99):.1f} ms")
    return "; ".join(parts)


def test_twice_the_capacity(served_project: ServedProject, tell: Callable[[str], None]) -> None:
    most = capacity(served_project)
    tell(f"capacity {most:.0f}/s of 20 rows")
    calm = asked(served_project, 0.7 * most, CALM_S)
    tell(f"70 %: {told(calm, CALM_S)}")
    before = served_project.rss_mib()
    over = asked(served_project, 2 * most, SECONDS)
    grown = served_project.rss_mib() - before
    tell(f"200 %: {told(over, SECONDS)}; memory {before:.0f} MiB, grown by {grown:.0f}")
    after = asked(served_project, 0.5 * most, CALM_S)
    tell(f"50 % after it: {told(after, CALM_S)}")
    accepted = [reply for reply in over if reply.status == 200]
    refused = [reply for reply in over if reply.status != 200]
    assert {reply.status for reply in refused} == {503}
    assert all(b"retry-after: 1\r\n" in reply.raw for reply in refused)
    assert {said(reply)["error"]["kind"] for reply in refused[::97]} == {"busy"}
    assert grown < GROWTH_MIB
    assert quantile_ms(accepted, 0.9) < max(TIMES * quantile_ms(calm, 0.9), LEAST_MS)
    assert quantile_ms(refused, 0.5) < LEAST_MS
    assert len(accepted) > 0.3 * most * SECONDS
    assert statuses(after)[200] > 0.9 * len(after)
    assert served_project.prove() > 0
