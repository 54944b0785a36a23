"""Parity on a cluster: markers are on every node, and the states of a view are spread over all of them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.servers.cluster import Cluster
from tests.worlds.parity import NOW, ParityWorld, busy_hour

CARRIERS = tuple(f"c{i}" for i in range(30))


@pytest.mark.soak  # in make test, they are on one server
def test_states_and_rows_are_compared_and_repaired(three_nodes: Cluster, tmp_path: Path) -> None:
    world = ParityWorld(root=tmp_path, url=three_nodes.url)
    try:
        world.accept(busy_hour(CARRIERS, 300), apply=False)
        world.bootstrap()
        world.facts(*((i, 0, 1.0 * i, "x") for i in range(20)))
        assert world.compare().as_dict()["compared"] == 30 + 3 + 20 + 3
        writer = world.writer._servers.client
        writer.delete(world.key("c3"))
        writer.delete(world.row_key(7))
        report = world.compare(repair=True)
        assert report.as_dict()["by_cause"] == {"absent": 1, "lost_row": 1}
        assert (report.ok, world.compare().as_dict()["mismatches"]) == (True, 0)
        _beside_a_worker(world)
    finally:
        world.close()


def _beside_a_worker(world: ParityWorld) -> None:
    stop = threading.Event()

    def work() -> None:
        i = 0
        while not stop.is_set():
            i += 1
            world.accept([(name, NOW - i, 0.1 * i, i) for name in CARRIERS])

    other = ParityWorld(root=world.root, url=world.url, clock=world.clock)
    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(4):
            assert other.compare("carrier_now").as_dict()["mismatches"] == 0
    finally:
        stop.set()
        worker.join()
        other.close()
