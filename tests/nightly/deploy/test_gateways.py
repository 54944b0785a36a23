"""A gateway before three real servers: a server that dies, drains or hangs costs no caller a reply."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nightly.deploy.callers import Callers, Question, calling
from tests.nightly.deploy.gateways import KINDS, RunningGateway, running_gateway
from tests.nightly.deploy.replicas import Replicas, replicas
from tests.worlds.trained import opened_copy
from tests.worlds.waiting import until


@pytest.fixture(scope="module")
def servers(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Three servers; a test leaves all of them running."""
    with opened_copy(trained, tmp_path_factory.mktemp("gateways") / "p") as place, replicas(place) as servers:
        yield servers


@pytest.fixture(scope="module")
def questions(servers: Replicas) -> list[Question]:
    return servers.questions(60)


def _front(kind: str, folder: Path, servers: Replicas) -> Iterator[RunningGateway]:
    with running_gateway(kind, folder, servers.ports) as gateway:
        until(lambda: gateway.ask("GET", "/health/ready")[0] == 200)
        yield gateway


@pytest.fixture(params=KINDS)
def gateway(request: pytest.FixtureRequest, servers: Replicas, tmp_path: Path) -> Iterator[RunningGateway]:
    yield from _front(request.param, tmp_path, servers)


@pytest.fixture
def haproxy(servers: Replicas, tmp_path: Path) -> Iterator[RunningGateway]:
    yield from _front("haproxy", tmp_path, servers)


def check_traffic_returns(servers: Replicas, n: int) -> None:
    before = servers.predicted(n)
    until(lambda: servers.predicted(n) > before + 50)


def check(callers: Callers, tell: Callable[[str], None]) -> None:
    """No request has failed; say how many there were."""
    assert callers.failures == []
    tell(f"{callers.gateway.kind}: {callers.answered} replies, 0 failed; slowest {callers.slowest_s:.2f} s")


def check_killed_server(
    gateway: RunningGateway,
    servers: Replicas,
    questions: list[Question],
    tell: Callable[[str], None],
    pause_s: float = 0.0,
) -> None:
    with calling(gateway, questions, pause_s) as callers:
        callers.wait_answers(300)
        servers.signal(1, signal.SIGKILL)
        servers.wait(1)
        callers.wait_answers(600)
        callers.pause_s *= 20  # the start takes as long with fewer questions
        servers.start(1)
        check_traffic_returns(servers, 1)
    check(callers, tell)


def test_a_killed_server_costs_no_reply_behind_haproxy(
    haproxy: RunningGateway, servers: Replicas, questions: list[Question], tell: Callable[[str], None]
) -> None:
    check_killed_server(haproxy, servers, questions, tell, pause_s=0.05)


@pytest.mark.soak
def test_a_killed_server_costs_no_reply(
    gateway: RunningGateway, servers: Replicas, questions: list[Question], tell: Callable[[str], None]
) -> None:
    for _ in range(3):
        check_killed_server(gateway, servers, questions, tell)


@pytest.mark.soak
def test_a_drained_server_costs_no_reply(
    gateway: RunningGateway, servers: Replicas, questions: list[Question], tell: Callable[[str], None]
) -> None:
    with calling(gateway, questions) as callers:
        for n in range(3):
            servers.signal(n, signal.SIGTERM)
            assert servers.wait(n) == 0
            callers.wait_answers(300)
            servers.start(n)
            check_traffic_returns(servers, n)
    check(callers, tell)


@pytest.mark.soak
def test_a_hung_server_costs_no_reply(
    gateway: RunningGateway, servers: Replicas, questions: list[Question], tell: Callable[[str], None]
) -> None:
    with calling(gateway, questions) as callers:
        callers.wait_answers(300)
        servers.signal(1, signal.SIGSTOP)
        try:
            until(lambda: callers.slowest_s > 9)
            callers.wait_answers(600)
        finally:
            servers.signal(1, signal.SIGCONT)
        check_traffic_returns(servers, 1)
    check(callers, tell)
