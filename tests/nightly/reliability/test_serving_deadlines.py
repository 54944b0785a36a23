"""Time limits of clients hold while features are on their way from a store that answers late."""

from __future__ import annotations

import time
from collections.abc import Iterator

import orjson
import pytest

from tests.nightly.reliability.slow_proxy import SlowProxy, slow_proxy
from tests.nightly.worlds.served import LENIENT, STRICT, ServedProject, make_served, served
from tests.servers.node import Node, running
from tests.servers.programs import program

SLOW_S, SHORT_US, LONG_US = 0.05, 20_000, 5_000_000


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowProxy]:
    with running(Node(program("valkey"), tmp_path_factory.mktemp("store"))) as node, slow_proxy(node.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def served_project(proxy: SlowProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProject]:
    repo = make_served(tmp_path_factory.mktemp("deadlines") / "p", proxy.url)
    with served(repo, proxy.url) as served_project:
        served_project.until_calm()
        proxy.delay_s = SLOW_S
        yield served_project
        # Replies that nobody waited for any more went to nobody else: replay proves every answer.
        assert served_project.metric("skewless_requests_in_flight") == 0
        assert served_project.prove() > 0


def degraded(served_project: ServedProject, model: str, timeout_us: int) -> tuple[int, bool | None, float]:
    """Return status, whether the answer did without features (None: there is none), and the time it took."""
    began = time.perf_counter()
    status, _, text = served_project.ask(model, timeout_us=timeout_us)
    return status, orjson.loads(text).get("degraded"), time.perf_counter() - began


@pytest.mark.parametrize("model", [LENIENT, STRICT])
def test_who_can_wait_gets_the_features(served_project: ServedProject, model: str) -> None:
    status, without, seconds = degraded(served_project, model, LONG_US)
    assert (status, without) == (200, False)
    assert seconds >= SLOW_S


def test_who_cannot_wait_gets_an_answer_without_features_if_the_model_may(served_project: ServedProject) -> None:
    before = served_project.metric("skewless_refused_requests_total")
    for _ in range(20):
        status, without, _ = degraded(served_project, LENIENT, SHORT_US)
        assert (status, without) == (200, True)
    assert served_project.metric("skewless_refused_requests_total") - before == 20


def test_who_cannot_wait_is_refused_if_the_model_may_not(served_project: ServedProject) -> None:
    for _ in range(20):
        assert degraded(served_project, STRICT, SHORT_US)[:2] == (504, None)


@pytest.mark.soak
@pytest.mark.parametrize(("model", "status"), [(LENIENT, 200), (STRICT, 504)])
def test_soak_the_answer_comes_when_it_is_due(served_project: ServedProject, model: str, status: int) -> None:
    seconds = sorted(degraded(served_project, model, SHORT_US)[2] for _ in range(200))
    assert degraded(served_project, model, SHORT_US)[0] == status
    assert seconds[0] > SHORT_US / 1e6 - 0.002  # the loop counts in milliseconds
    assert seconds[100] < SLOW_S, seconds[100]
    assert seconds[198] < SLOW_S + SHORT_US / 1e6, seconds[-5:]
