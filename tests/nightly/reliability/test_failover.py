"""SEMANTICS 4.5 with sentinels: a failover in the middle of a run, and one that loses what was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.contract.clock import ManualClock
from skewless.contract.errors import StoreError
from skewless.contract.keys import marker_key
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.port import Binaries
from skewless.infra.reads.online.redis_store import RedisWriter
from tests.reliability.losses import FIRST, VIEW, agrees, materialize, reader_mark, reader_marker, write_rounds
from tests.servers.programs import program
from tests.servers.sentinels import SentinelSet, sentinel_set
from tests.worlds.latest import LatestRedisWorld

KEYS = 60
pytestmark = pytest.mark.soak


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[SentinelSet]:
    with sentinel_set(program("valkey"), tmp_path / "set") as nodes:
        yield nodes


@pytest.fixture
def latest(tmp_path: Path, watched: SentinelSet) -> LatestRedisWorld:
    return LatestRedisWorld(root=tmp_path / "p", url=watched.url, clock=ManualClock(FIRST))


class FailingOver(RedisWriter):
    """Loses its master before one of its puts."""

    def __init__(self, watched: SentinelSet, at: int) -> None:
        super().__init__(watched.url)
        self._watched = watched
        self._left = at

    def put(self, keys: Binaries, rows: Binaries) -> int:
        self._left -= 1
        if self._left == 0:
            self._watched.fail_over()
        return super().put(keys, rows)


@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_run_through_a_failover_vouches_for_nothing(
    latest: LatestRedisWorld, watched: SentinelSet, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skewless.infra.ingest.materialization.latest_rows._BATCH_ROWS", 7)
    materialize(latest, 1, KEYS)
    watched.replicate()
    write_rounds(latest, 2, KEYS)
    latest.clock.set(FIRST + 2)
    writer = FailingOver(watched, at)
    with latest.connect() as connection, pytest.raises(StoreError):
        latest.job(connection, writer).run([VIEW])
    writer.close()
    assert asyncio.run(reader_marker(latest)) == KEYS - 1
    latest.clock.set(FIRST + 3)
    latest.run(VIEW)
    assert agrees(latest, KEYS)


def test_writes_that_no_replica_had_are_put_again(latest: LatestRedisWorld, watched: SentinelSet) -> None:
    materialize(latest, 1, KEYS)
    master = watched.master()
    watched.replicate()
    replicas = watched.replicas()
    for node in replicas:
        node.freeze()
    # More than the buffers of the kernel between master and replica hold.
    materialize(latest, 2, KEYS, note="x" * 500_000)
    name, marker_history = marker_key(latest.project, VIEW), MarkerHistory()
    assert marker_history.find_lost([name], [asyncio.run(reader_mark(latest))]) == set()
    master.kill()
    for node in replicas:
        node.thaw()
    watched.successor(master)
    assert marker_history.find_lost([name], [asyncio.run(reader_mark(latest))]) == {name}
    assert not agrees(latest, KEYS)
    latest.clock.set(FIRST + 100)
    latest.run(VIEW)
    assert agrees(latest, KEYS)
    assert marker_history.find_lost([name], [asyncio.run(reader_mark(latest))]) == set()
