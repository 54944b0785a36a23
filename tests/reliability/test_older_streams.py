"""A Redis that is restored to an older copy loses what only it had: the loss is reported, and nothing else is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.older_streams import PARTITIONS, OlderStream, older_stream
from tests.servers.node import Node

BOTH = {str(index) for index in range(PARTITIONS)}


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
        assert stream.losses() == set()
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
        assert stream.losses() == set()
