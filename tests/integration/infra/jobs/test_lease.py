"""The lease on a real server: one holder, rising tokens, expiry by the server's clock, lost data, no server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.jobs.lease import Lease
from tests.servers.node import Node, running
from tests.servers.programs import program


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running(Node(program("valkey"), tmp_path / "node")) as node:
        yield node


def lease(node: Node, holder: str, *, ttl_s: float = 60.0, project: str = "p") -> closing[Lease]:
    return closing(Lease(node.url, project, holder=holder, ttl_s=ttl_s))


def test_one_holds_it_until_it_is_released_and_tokens_rise(node: Node) -> None:
    with lease(node, "a") as a, lease(node, "b") as b:
        assert (a.take(0), b.take(0)) == (1, None)
        assert (a.held_by(), a.take(0)) == ("a", 1)
        assert (a.renew(), b.renew()) == (True, False)
        b.release()
        assert b.take(0) is None
        a.release()
        assert (b.held_by(), b.take(0), a.renew()) == (None, 2, False)


def test_projects_have_their_own(node: Node) -> None:
    with lease(node, "a") as a, lease(node, "b", project="q") as b:
        assert (a.take(0), b.take(0)) == (1, 1)


def test_a_silent_holder_is_replaced_and_finds_out(node: Node) -> None:
    with lease(node, "a", ttl_s=0.5) as a, lease(node, "b", ttl_s=0.5) as b:
        assert a.take(0) == 1
        deadline = time.monotonic() + 30
        while (token := b.take(0)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert (token, a.renew()) == (2, False)
        a.release()
        assert b.held_by() == "b"


def test_a_server_that_lost_its_data_gives_no_token_twice(node: Node) -> None:
    with lease(node, "a") as a, lease(node, "b") as b:
        assert a.take(6) == 7
        node.kill()
        node.start()
        assert b.take(7) == 8


def test_a_server_that_is_away_is_said(node: Node) -> None:
    with lease(node, "a") as a:
        assert a.take(0) == 1
        node.kill()
        for ask in (a.renew, a.release, a.held_by, lambda: a.take(0)):
            with pytest.raises(StoreError, match="did not answer"):
                ask()
        node.start()
        assert a.renew() is False
