"""A Redis that is restored to an older copy loses what only it had: the loss is reported, and nothing else is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.ingest.streams.erased_messages import _rewrite
from skewless.infra.ingest.streams.redis_link import EventKeys, RedisSender
from skewless.infra.log.stream_losses import StreamLoss, StreamLosses
from tests.reliability.older_streams import BOTH, PARTITIONS, OlderStream, older_stream
from tests.servers.node import Node

_LINK = "skewless.infra.ingest.streams.redis_link"


@pytest.mark.parametrize("id_column", ["event", None])
@pytest.mark.parametrize("send", [OlderStream.send, OlderStream.send_behind], ids=["right", "behind"])
@pytest.mark.parametrize("restarts", [False, True], ids=["same", "restarted"])
def test_a_worker_reports_what_an_older_copy_lost_and_reads_on(
    tmp_path: Path,
    node: Node,
    id_column: str | None,
    send: Callable[[OlderStream, int], None],
    restarts: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    with older_stream(tmp_path, node.url, id_column) as stream:
        stream.send(40)
        stream.read()
        stream.send(20)
        stream.copy()  # with messages that are not committed
        stream.send(20)
        stream.read()
        stream.worker.step()
        assert not stream.losses()
        stream.send(10)
        stream.restore()
        assert len(stream.lost) == 10
        if restarts:
            stream.restart()
        send(stream, 20)
        stream.check()
        assert stream.losses() == BOTH
        stream.send(10)
        stream.restart()
        stream.check()
        assert stream.losses() == BOTH


@pytest.mark.parametrize("restarts", [False, True], ids=["same", "restarted"])
def test_the_last_message_may_be_erased(
    tmp_path: Path,
    node: Node,
    restarts: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    with older_stream(tmp_path, node.url, "event") as stream:
        stream.send(20)
        stream.read()
        with stream.node.client() as client:
            keys = EventKeys(project="p", source="s")
            for index in range(PARTITIONS):
                entries: Any = client.xrevrange(keys.stream(index), count=1)
                last = entries[0][1][b"e"].decode()
                assert _rewrite(client, keys, index, last.__eq__) == 1
        if restarts:
            stream.restart()
        stream.send(20)
        stream.check()
        assert not stream.losses()


@pytest.mark.parametrize("id_column", ["event", None])
def test_a_worker_that_was_killed_before_it_committed_reports_no_loss(
    tmp_path: Path, node: Node, id_column: str | None
) -> None:
    with older_stream(tmp_path, node.url, id_column, keep=0) as stream:
        for _ in range(3):
            stream.send(20)
            stream.copy()
            stream.read()
            stream.restart()
            stream.check()
        assert not stream.losses()


def test_each_step_back_is_recorded_once(tmp_path: Path, node: Node) -> None:
    with older_stream(tmp_path, node.url, "event") as stream:
        stream.send(20)
        stream.read()
        for n in (1, 2, 3):
            stream.copy()
            stream.send(20)
            stream.read()
            stream.restore()
            stream.restart()
            stream.check()
            stream.send(20)
            stream.restart()
            stream.check()
            assert stream.losses() == dict.fromkeys(BOTH, n)


def test_a_step_back_after_whose_record_the_worker_ends_is_recorded_once(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = StreamLosses.add

    def fail_then(losses: StreamLosses, loss: StreamLoss) -> None:
        add(losses, loss)
        raise StoreError("database", "is away", fix="start it")

    with older_stream(tmp_path, node.url, "event") as stream:
        stream.send(20)
        stream.read()
        stream.copy()
        stream.send(20)
        stream.read()
        stream.restore()
        with monkeypatch.context() as patch:
            patch.setattr(StreamLosses, "add", fail_then)
            for _ in range(PARTITIONS):
                stream.worker.step()
        assert stream.losses()
        stream.check()
        assert stream.losses() == BOTH


def test_a_worker_reports_what_an_emptied_redis_lost_and_logs_what_it_has_read(tmp_path: Path, node: Node) -> None:
    with older_stream(tmp_path, node.url, "event") as stream:
        stream.send(20)
        stream.read()
        stream.send(20)
        stream.worker._written_at = time.monotonic() + 0.5  # nothing is written before
        stream.worker.step()
        assert sum(each.waiting for each in stream.worker._partition_workers.values()) == 20
        stream.node.ask("FLUSHALL")
        stream.check()
        assert stream.losses() == BOTH


def test_a_required_log_is_not_confirmed_by_later_events_of_an_older_copy(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with older_stream(tmp_path, node.url, "event") as stream:
        stream.send(20)
        stream.read()
        stream.copy()

        def lose(_: float) -> None:
            """Restore the copy while the sender waits; a worker commits a later position."""
            stream.restore()
            stream.sender.close()
            stream.send(20)
            stream.read()

        monkeypatch.setattr(f"{_LINK}.time", SimpleNamespace(monotonic=time.monotonic, sleep=lose))
        url = stream.node.url
        required = RedisSender(url, project="p", source="s", n_partitions=PARTITIONS, group="skewless")
        with pytest.raises(StoreError, match="may lack the events: their stream has lost them"):
            required.send([b'{"event": "x", "id": 1}'], ["1"])
        required.close()
        assert "x" not in stream.logged()
