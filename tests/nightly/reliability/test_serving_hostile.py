"""Clients that read nothing or send slowly are dropped; all others are answered as ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import orjson
import pytest

from benchmarks.http_wire import post
from tests.nightly.reliability import hostile
from tests.nightly.reliability.hostile import Drip
from tests.nightly.reliability.open_load import Target, load, quantile_ms, statuses
from tests.nightly.worlds.served import LENIENT, STRICT, ServedProject, make_served, predictions, served
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.trained import ask

pytestmark = pytest.mark.soak
RATE = 200.0
GROWTH_MIB = 64.0


@pytest.fixture(scope="module")
def served_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProject]:
    """A server that no test may make show a traceback."""
    folder = tmp_path_factory.mktemp("hostile")
    with running(Node(program("valkey"), folder / "store")) as node:
        repo = make_served(folder / "p", node.url)
        with served(
            repo, node.url, SKEWLESS_LOG_CAPACITY="10000"
        ) as served_project:  # so that memory shows only the rest
            served_project.until_calm()
            yield served_project
            served_project.prove()


@pytest.fixture
def target(served_project: ServedProject) -> Target:
    return Target.of(served_project.url)


@contextmanager
def others(served_project: ServedProject, tell: Callable[[str], None]) -> Iterator[None]:
    """Let others ask meanwhile: all of them are answered, and the server's memory stays what it was."""
    before = served_project.rss_mib()
    with load(served_project.url, predictions([LENIENT, STRICT]), rate=RATE) as sender:
        yield
        after = served_project.rss_mib()
    replies = sender.replies
    tell(
        f"{len(replies)} others: p50 {quantile_ms(replies, 0.5):.1f} ms, p99 {quantile_ms(replies, 0.99):.1f} ms, "
        f"longest {quantile_ms(replies, 1.0):.1f} ms; memory {before:.0f} -> {after:.0f} MiB"
    )
    assert (sender.hung, set(statuses(replies))) == (0, {200}), statuses(replies)
    assert quantile_ms(replies, 1.0) < 2_000
    assert after - before < GROWTH_MIB
    served_project.check_log()


def test_replies_that_nobody_reads(served_project: ServedProject, target: Target, tell: Callable[[str], None]) -> None:
    many = post("/predict", orjson.dumps({"model": LENIENT, "rows": ask(300), "features": True}))
    for _ in range(3):
        hostile.stuffed(target, many, 3.0)  # warms what large batches need
    before = served_project.metric("skewless_predictions_total")
    with others(served_project, tell):
        taken = [hostile.stuffed(target, many, 3.0) for _ in range(5)]
        answered = (served_project.metric("skewless_predictions_total") - before) / 300
        tell(f"sent {[size // len(many) for size in taken]} requests, of which {answered:.0f} were answered, none read")
    assert answered < sum(taken) / len(many) / 4


def test_clients_that_dawdle_are_dropped(
    served_project: ServedProject, target: Target, tell: Callable[[str], None]
) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\n"
    texts = {
        "half a head": (head, b"x-" + b"y" * 500),
        "half a body": (head + b"content-length: 1000\r\n\r\n", b" " * 500),
        "silence": (b"", b""),
    }
    with others(served_project, tell), ExitStack() as stack:
        began = time.monotonic()
        drips = {name: stack.enter_context(closing(Drip(target, 100, *text))) for name, text in texts.items()}
        gone: dict[str, float] = {}
        while len(gone) < len(drips) and time.monotonic() - began < 120:
            for name, drip in drips.items():
                drip.drop()
                if name not in gone and not drip.open():
                    gone[name] = round(time.monotonic() - began, 1)
            time.sleep(0.5)
        tell(f"dropped after {gone} s")
    assert gone.keys() == texts.keys()
    assert max(gone["half a head"], gone["half a body"]) < 40 < gone["silence"] < 90
