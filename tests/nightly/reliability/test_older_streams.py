"""Random orders of sending, reading, copying, restoring and restarting: only what a restored copy lacks is lost."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest

from tests.reliability.older_streams import BOTH, OlderStream, older_stream
from tests.servers.node import Node, running
from tests.servers.programs import program


@pytest.mark.parametrize("id_column", ["event", None])
@pytest.mark.parametrize("keep", [None, 0, 5])
@pytest.mark.parametrize("server", ["valkey", "redis"])
@pytest.mark.parametrize("seed", range(6))
def test_only_what_an_older_copy_lacks_is_lost(
    tmp_path: Path, id_column: str | None, keep: int | None, server: Literal["valkey", "redis"], seed: int
) -> None:
    luck = random.Random(seed)
    with (
        running(Node(program("valkey"), tmp_path / "node")) as node,
        older_stream(tmp_path, node.url, id_column, keep, server) as stream,
    ):
        stream.send(luck.randrange(40))
        stream.read()
        stream.copy()
        steps = [
            lambda: stream.send(luck.randrange(1, 60)),
            lambda: stream.send_behind(luck.randrange(1, 20)),
            stream.read,
            lambda: stream.worker.step(),  # noqa: PLW0108 - of the worker that is there then
            stream.copy,
            stream.restart,
        ]
        for _ in range(4):
            for _ in range(luck.randrange(2, 12)):
                luck.choice(steps)()
            _restore(stream, luck)
            stream.check()


def _restore(stream: OlderStream, luck: random.Random) -> None:
    before = stream.losses()
    stream.restore()
    if luck.random() < 0.5:
        stream.restart()
    if luck.random() < 0.7:
        luck.choice([stream.send, stream.send_behind])(luck.randrange(1, 30))
    stream.read()
    after = stream.losses()
    assert before <= after <= before + Counter(BOTH)
