"""The store hangs, dies, is slow or hands over while the server is asked: it answers what it may, and comes back."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.nightly.reliability.open_load import OpenLoad, TimedReply, load, quantile_ms, statuses
from tests.nightly.reliability.run_delays import RunDelays, run_delays
from tests.nightly.reliability.slow_proxy import slow_proxy
from tests.nightly.worlds.served import LENIENT, STRICT, ServedProject, make_served, opened, predictions, said, served
from tests.servers.cluster import cluster
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.servers.sentinels import sentinel_set

pytestmark = pytest.mark.soak
RATE, KILLS = 300.0, 60
TIMEOUT_S, MARGIN_S = 0.5, 0.5  # feature_timeout_ms is its default
BACKLOG_S = 1.0  # how long before a request the machine may have kept the server from earlier ones
AOF = {"appendonly": "yes"}


class WatchedLoad(NamedTuple):
    """Requests that are sent, and how long their sender and the server waited for a core."""

    sender: OpenLoad
    delays: RunDelays

    @property
    def replies(self) -> list[TimedReply]:
        return self.sender.replies

    def seconds(self, reply: TimedReply) -> float:
        """Return the time of a reply without that in which the machine was busy with others."""
        return reply.seconds - self.delays.between(reply.due - BACKLOG_S, reply.ended)


@contextmanager
def asked(server: ServedProject) -> Iterator[WatchedLoad]:
    """Ask both models for as long as the block runs, and for a while before and after it."""
    server.until_calm()
    with (
        run_delays([*server.pids, os.getpid()]) as delays,
        load(server.url, predictions([LENIENT, STRICT]), rate=RATE, connections=1_000) as sender,
    ):
        time.sleep(1)
        yield WatchedLoad(sender, delays)
        server.until_calm()
        time.sleep(1)


def check(server: ServedProject, sent: WatchedLoad, *, trips: int = 1) -> None:
    """Every request had an allowed answer in time, there were both kinds, and replay finds no difference."""
    replies = sent.replies
    assert (sent.sender.hung, {reply.status for reply in replies} <= {200, 503}) == (0, True), statuses(replies)
    for reply in replies:
        check_reply(reply)
    late = [reply.seconds for reply in replies if sent.seconds(reply) > TIMEOUT_S + MARGIN_S]
    assert len(late) <= len(replies) // 1_000, (len(replies), sorted(late)[-10:])
    whole = [reply for reply in replies[-100:] if reply.status == 200 and not said(reply)["degraded"]]
    assert len(whole) == 100, statuses(replies[-100:])
    assert server.metric("skewless_breaker_state") == 0
    assert server.metric("skewless_breaker_trips_total") >= trips
    assert server.prove() >= sum(reply.status == 200 for reply in replies)


def check_reply(reply: TimedReply) -> None:
    body = said(reply)
    strict = reply.place % 2 == 1
    if reply.status == 503:
        assert strict, body
        assert (body["error"]["kind"], b"retry-after: 1\r\n" in reply.raw) == ("store", True)
    else:
        assert body["model"] == (STRICT if strict else LENIENT)
        assert not (strict and body["degraded"])


def counted(replies: Sequence[TimedReply]) -> str:
    """Return what came, in a line."""
    degraded = sum(reply.status == 200 and said(reply)["degraded"] for reply in replies)
    return (
        f"{len(replies)} replies: {dict(statuses(replies))}, {degraded} degraded, "
        f"p50 {quantile_ms(replies, 0.5):.1f} ms, p99 {quantile_ms(replies, 0.99):.1f} ms, "
        f"longest {quantile_ms(replies, 1.0):.1f} ms"
    )


def frozen(node: Node) -> None:
    node.freeze()
    time.sleep(3)
    node.thaw()


def killed(node: Node) -> None:
    node.kill()
    time.sleep(2)
    node.start()


def flapping(node: Node) -> None:
    for _ in range(10):
        node.freeze()
        time.sleep(0.3)
        node.thaw()
        time.sleep(0.3)


@pytest.mark.parametrize("fault", [frozen, killed, flapping])
def test_a_store_that_hangs_or_dies(fault: Callable[[Node], None], tmp_path: Path, tell: Callable[[str], None]) -> None:
    with running(Node(program("valkey"), tmp_path / "store", AOF)) as node:
        repo = make_served(tmp_path / "p", node.url)
        with served(repo, node.url) as server:
            with asked(server) as sender:
                fault(node)
            tell(counted(sender.replies))
            check(server, sender, trips=0 if fault is flapping else 1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_server_outlives_kill_after_kill_of_its_store(
    seed: int, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """At random moments of reads that show features; once in 63 lives a server was gone without a word."""
    chance = random.Random(seed)
    with running(Node(program("valkey"), tmp_path / "store", AOF)) as node:
        repo = make_served(tmp_path / "p", node.url)
        with served(repo, node.url) as server:
            server.until_calm()
            requests = predictions([LENIENT, STRICT], rows=5, features=True)
            with load(server.url, requests, rate=RATE, connections=1_000) as sender:
                for _ in range(KILLS):
                    time.sleep(chance.uniform(0.0, 0.4))
                    node.kill()
                    time.sleep(chance.uniform(0.0, 0.2))
                    node.start()
                    assert server.server.process.poll() is None, server.log()[-5_000:]
                server.until_calm()
            tell(f"{KILLS} kills; {counted(sender.replies)}")
            assert (sender.hung, {reply.status for reply in sender.replies}) == (0, {200, 503})
            for reply in sender.replies:
                check_reply(reply)
            assert server.prove() >= sum(reply.status == 200 for reply in sender.replies)


def test_a_store_that_comes_back_empty_is_filled_again(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with running(Node(program("valkey"), tmp_path / "store")) as node:
        repo = make_served(tmp_path / "p", node.url)
        with served(repo, node.url) as server:
            with asked(server) as sender:
                killed(node)
                assert server.ask(STRICT)[0] == 503
                with opened(repo, node.url) as project:
                    project.materialize(check=False)
            tell(counted(sender.replies))
            check(server, sender)


def test_a_slow_store(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with running(Node(program("valkey"), tmp_path / "store")) as node, slow_proxy(node.port) as proxy:
        repo = make_served(tmp_path / "p", proxy.url)
        with served(repo, proxy.url) as server:
            with asked(server) as sender:
                proxy.delay_s = 0.05
                time.sleep(3)
                proxy.delay_s = 0.0
            tell(counted(sender.replies))
            assert statuses(sender.replies).keys() == {200}
            assert not any(said(reply)["degraded"] for reply in sender.replies)
            check(server, sender, trips=0)


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_sentinels_name_another_master(how: str, tmp_path: Path, tell: Callable[[str], None]) -> None:
    with sentinel_set(program("valkey"), tmp_path / "set") as watched:
        repo = make_served(tmp_path / "p", watched.url)
        with served(repo, watched.url) as server:
            with asked(server) as sender:
                old = watched.master()
                if how == "killed":
                    watched.fail_over()
                else:
                    old.freeze()
                    watched.successor(old)
                server.until_calm()
                if how == "frozen":
                    old.thaw()
            tell(counted(sender.replies))
            check(server, sender)


@pytest.mark.parametrize("fault", [frozen, killed])
def test_a_node_of_a_cluster(fault: Callable[[Node], None], tmp_path: Path, tell: Callable[[str], None]) -> None:
    with cluster(program("valkey"), tmp_path / "cluster", options=AOF) as nodes:
        repo = make_served(tmp_path / "p", nodes.url)
        with served(repo, nodes.url) as server:
            with asked(server) as sender:
                fault(nodes.nodes[1])
            tell(counted(sender.replies))
            check(server, sender)
