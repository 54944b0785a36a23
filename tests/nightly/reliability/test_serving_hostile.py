"""Clients that would break the server get a status that fits or are dropped; all others are answered as ever."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from urllib.parse import urlsplit

import orjson
import pytest

from benchmarks.http_wire import post
from tests.nightly.reliability import hostile
from tests.nightly.reliability.hostile import Address, Drip
from tests.nightly.reliability.open_load import load, quantile_ms, statuses
from tests.nightly.worlds.served import LENIENT, STRICT, ServedProject, make_served, predictions, served
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.trained import ask

pytestmark = pytest.mark.soak
PREDICT, INFER = "/predict", f"/v2/models/{LENIENT}/infer"
ROUTES = [PREDICT, INFER]
BODY = orjson.dumps({"model": LENIENT, "rows": ask(1)})
GOOD = post(PREDICT, BODY)
RATE = 200.0
GROWTH_MIB = 64.0
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_REPLIES = re.compile(rb"(?=HTTP/1\.1 \d{3} )")


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
def socket_address(served_project: ServedProject) -> Address:
    parts = urlsplit(served_project.url)
    return str(parts.hostname), int(parts.port or 0)


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


def check_refusal(said: bytes, path: str, status: int) -> None:
    """The first reply is an error of a status, in the shape of its path, and nothing follows it."""
    assert [int(found) for found in _STATUS.findall(said)] == [status], said[:500]
    error = orjson.loads(said.partition(b"\r\n\r\n")[2])["error"]
    assert isinstance(error if path == INFER else error["message"], str)


@pytest.mark.parametrize("path", ROUTES)
def test_what_is_too_much_is_refused(
    served_project: ServedProject, socket_address: Address, path: str, tell: Callable[[str], None]
) -> None:
    attacks: list[tuple[Iterable[bytes], int]] = [
        (hostile.huge(path, chunked=False), 413),
        (hostile.huge(path, chunked=True), 413),
        (hostile.many_headers(path), 431),
        (hostile.long_header(path), 431),
        (hostile.deep(path), 400),
        (hostile.deep(path, b'{"a":'), 400),
    ]
    with others(served_project, tell):
        for parts, status in attacks:
            said = hostile.told(socket_address, parts)
            if said:  # a reply may be lost on its way to one who still sends
                check_refusal(said, path, status)
        time.sleep(1)


def test_lengths_that_are_not_true(
    served_project: ServedProject, socket_address: Address, tell: Callable[[str], None]
) -> None:
    with others(served_project, tell):
        said = hostile.told(socket_address, hostile.longer_than_said(PREDICT, BODY))
        # The bytes after the body are not a request, so they may have a reply of their own.
        _, *replies = _REPLIES.split(said)
        assert len(replies) in {1, 2}, said[:500]
        for reply in replies:
            check_refusal(reply, PREDICT, 400)
        for promised, sent in (
            (8, b"abc"),
            (8, b""),
            (3, b"abc"),
            (8, b"12345678abc"),
            (-1, b"12345678"),
            (1 << 62, b"1"),
        ):
            check_refusal(hostile.told(socket_address, hostile.truncated_tensor(INFER, promised, sent)), INFER, 400)
        said = hostile.told(socket_address, [GOOD.replace(b"content-length: ", b"content-length: -")])
        check_refusal(said, PREDICT, 400)
        twice = GOOD.replace(b"content-length", b"content-length: 3\r\ncontent-length")
        check_refusal(hostile.told(socket_address, [twice]), PREDICT, 400)


def test_a_thousand_requests_at_once(
    served_project: ServedProject, socket_address: Address, tell: Callable[[str], None]
) -> None:
    with others(served_project, tell), hostile.connected(socket_address) as connection:
        connection.sendall(GOOD * 1_000)
        said = b""
        while len(_STATUS.findall(said)) < 1_000:
            data = connection.recv(1 << 20)
            assert data, said[-500:]
            said += data
        assert set(_STATUS.findall(said)) == {b"200"}


def test_connections_that_are_reset(
    served_project: ServedProject, socket_address: Address, tell: Callable[[str], None]
) -> None:
    with others(served_project, tell):
        for size in (10, 60, len(GOOD) - 1, len(GOOD), 3 * len(GOOD)):
            for _ in range(100):
                hostile.reset(socket_address, (GOOD * 3)[:size])
        time.sleep(1)
    assert served_project.metric("skewless_requests_in_flight") == 0


def test_replies_that_nobody_reads(
    served_project: ServedProject, socket_address: Address, tell: Callable[[str], None]
) -> None:
    many = post(PREDICT, orjson.dumps({"model": LENIENT, "rows": ask(300), "features": True}))
    hostile.stuffed(socket_address, many, 3.0)  # warms what large batches need
    before = served_project.metric("skewless_predictions_total")
    with others(served_project, tell):
        taken = [hostile.stuffed(socket_address, many, 3.0) for _ in range(5)]
        answered = (served_project.metric("skewless_predictions_total") - before) / 300
        tell(f"sent {[size // len(many) for size in taken]} requests, of which {answered:.0f} were answered, none read")
    assert answered < sum(taken) / len(many) / 4


def test_clients_that_dawdle_are_dropped(
    served_project: ServedProject, socket_address: Address, tell: Callable[[str], None]
) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\n"
    texts = {
        "half a head": (head, b"x-" + b"y" * 500),
        "half a body": (head + b"content-length: 1000\r\n\r\n", b" " * 500),
        "silence": (b"", b""),
    }
    with others(served_project, tell), ExitStack() as stack:
        began = time.monotonic()
        drips = {name: stack.enter_context(closing(Drip(socket_address, 100, *text))) for name, text in texts.items()}
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
