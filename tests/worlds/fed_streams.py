"""Streams in memory for workers, and what feeds them."""

from __future__ import annotations

from collections.abc import Callable

from skewless.contract.windows.hops import SECOND
from skewless.infra.ingest.streams.port import EventStream, RebalanceListener
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.worlds.streams import StreamWorld, Traffic

PARTITIONS = 3


def opening(broker: MemoryBroker) -> Callable[[RebalanceListener], EventStream]:
    return lambda owner: MemoryStream(broker, owner)


def feed(world: StreamWorld, traffic: Traffic, *brokers: MemoryBroker, n: int = 40) -> None:
    world.clock.set(world.clock.now_us() + 7 * SECOND)
    for key, message in traffic.make(n, world.clock.now_us()):
        for broker in brokers:
            broker.append(key % PARTITIONS, message)
