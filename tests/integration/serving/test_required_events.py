"""Events with ``log="required"``: an answer means that the log has them, whatever becomes of Redis."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from skewless.client import Client
from skewless.contract.errors import RequestError, StoreError
from skewless.contract.settings import Settings
from skewless.infra.ingest.streams.redis_link import open_sender
from skewless.infra.log.catalog import log_partitions
from skewless.infra.log.partition_log import PartitionLog
from skewless.operations.health.checks import examine
from skewless.operations.health.status import read_status
from tests.integration.serving.conftest import EventRoutes, serving
from tests.reliability.losses import DURABLE, OlderCopy
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.waiting import until
from tests.worlds.windowed_feast import WindowedFeastProject, columns, landing, open_windowed, some

CLIENTS = 4


class PausableWorker:
    """A worker in a thread of its own."""

    def __init__(self, windowed: WindowedFeastProject) -> None:
        self._windowed = windowed
        self._ends = threading.Event()
        self._works = threading.Event()
        self._rests = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._works.set()
        self._thread.start()

    def pause(self) -> None:
        """Return when it does nothing."""
        self._rests.clear()
        self._works.clear()
        assert self._rests.wait(20)

    def resume(self) -> None:
        self._works.set()

    def close(self) -> None:
        self._ends.set()
        self._works.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._ends.is_set():
            if not self._works.is_set():
                self._rests.set()
                self._works.wait()
            self._windowed.worker.step()


@contextmanager
def working(windowed: WindowedFeastProject) -> Iterator[PausableWorker]:
    worker = PausableWorker(windowed)
    try:
        yield worker
    finally:
        worker.close()


def logged(windowed: WindowedFeastProject) -> Counter[str]:
    """Return how often the log has each event."""
    state = windowed.project.state
    logs = [PartitionLog(state, name) for name in log_partitions(state, "landings")]
    return Counter(
        name for log in logs for rows in log.read(columns=["landing_id"]) for name in rows["landing_id"].to_pylist()
    )


@pytest.mark.parametrize("path", ["/events/landings", "/push"])
def test_a_required_reply_comes_when_the_log_has_the_events(
    windowed: WindowedFeastProject, event_routes: EventRoutes, path: str
) -> None:
    with working(windowed):
        for number in range(20):
            row = landing(number, "AA", 1, windowed.now_us())
            body = row if path != "/push" else {"push_source_name": "landings", "df": columns([row])}
            status, _, text = event_routes.post(f"{path}?log=required", json.dumps(body).encode())
            assert (status, json.loads(text)) == (202, {"accepted_for": 1, "source": "landings", "log": "required"})
            assert logged(windowed)[row["landing_id"]] == 1


def test_without_a_worker_a_required_reply_is_an_error_and_the_events_count_once(
    windowed: WindowedFeastProject, event_routes: EventRoutes, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"events": some(5, windowed.now_us())}).encode()
    with monkeypatch.context() as patch:
        patch.setattr("skewless.infra.ingest.streams.redis_link._LOG_S", 0.3)
        status, headers, text = event_routes.post("/events/landings?log=required", body)
    error = json.loads(text)["error"]
    assert (status, headers["retry-after"], error["kind"]) == (503, "1", "store")
    assert error["message"].startswith("log of event source 'landings': does not have the events after")
    with working(windowed):
        for _ in range(2):  # the second time, all are duplicates
            assert event_routes.post("/events/landings?log=required", body)[0] == 202
    assert logged(windowed) == {f"l{number}": 1 for number in range(5)}


def test_a_required_log_is_refused_for_a_source_that_is_a_topic(windowed: WindowedFeastProject) -> None:
    source = replace(windowed.project.applied.plan.source("landings"), kind="kafka", topic="t")
    with pytest.raises(RequestError, match=r"event source 'landings': is not a push source .got 'kafka'"):
        open_sender(source, Settings(), project="p", redis_url="redis://127.0.0.1:1", log="required")


def test_each_confirmed_event_is_in_the_log_although_redis_becomes_older(tmp_path: Path) -> None:
    with running(Node(program("valkey"), tmp_path / "node", DURABLE)) as node:
        windowed, copy = open_windowed(tmp_path / "repo", node.url), OlderCopy(node)
        windowed.build()
        try:
            with serving(windowed, node.url) as routes, working(windowed) as worker, sending(windowed, routes) as sent:
                for _ in range(3):
                    _grow(sent)
                    copy.take()
                    _grow(sent)
                    worker.pause()
                    before = len(sent)
                    threading.Event().wait(0.3)
                    assert len(sent) <= before + CLIENTS  # nobody confirms what no worker has logged
                    copy.restore()
                    worker.resume()
                _grow(sent)
            counts = logged(windowed)
            assert set(sent) <= counts.keys()
            assert set(counts.values()) == {1}
            _check_report(windowed, 3)
        finally:
            windowed.close()


@contextmanager
def sending(windowed: WindowedFeastProject, routes: EventRoutes) -> Iterator[list[str]]:
    """Let clients send one event after another, each until it is confirmed; give the ids of the confirmed ones."""
    confirmed: list[str] = []
    ends = threading.Event()

    def send(first: int) -> None:
        with Client(routes.url) as client:
            for number in range(first, 1_000_000, CLIENTS):
                row = landing(number, "AA", 1, windowed.now_us())
                while not _is_confirmed(client, row):
                    if ends.is_set():
                        return
                confirmed.append(row["landing_id"])
                if ends.is_set():
                    return

    threads = [threading.Thread(target=send, args=(first,)) for first in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield confirmed
    finally:
        ends.set()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)


def _is_confirmed(client: Client, row: dict[str, object]) -> bool:
    try:
        return client.send_events("landings", [row], event_id="landing_id", log="required") == 1
    except StoreError:
        return False


def _grow(sent: list[str]) -> None:
    """Wait until more events are confirmed."""
    more = len(sent) + 2 * CLIENTS
    until(lambda: len(sent) >= more)


def _check_report(windowed: WindowedFeastProject, n: int) -> None:
    """Check that status and doctor have each step back once."""
    losses = read_status(windowed.project).losses
    assert [loss["source"] for loss in losses] == ["landings"] * n
    found = [finding for finding in examine(windowed.repo) if finding.name == "event source landings"]
    assert [finding.verdict for finding in found] == ["warn"] * n
    assert all(f"after entry {loss['after']}" in found[i].detail for i, loss in enumerate(losses))
