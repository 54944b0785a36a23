"""When a stream says that nothing more had arrived, and of which partitions: what watermarks rest on."""

from __future__ import annotations

import random
import threading
import time

import pytest

from skewless.infra.ingest.streams.port import Partition
from tests.contract.streams import PLACES, Log, N, StreamKind, Worker, numbered, place_of, poll_until, send, spread


@pytest.fixture(params=PLACES)
def stream_place(request: pytest.FixtureRequest) -> StreamKind:
    return place_of(request)


def test_8_4_where_nothing_waits_all_that_is_owned_is_drained(stream_place: StreamKind) -> None:
    log = Log()
    worker = Worker(stream_place, log)
    assert list(worker.stream.find_drained()) == []
    poll_until([worker], lambda: len(worker.owned) == N and worker.all_drained)
    send(stream_place, numbered(300), spread(300))
    poll_until([worker], lambda: len(log.payloads()) == 300)
    poll_until([worker], lambda: len(worker.owned) == N and worker.all_drained)
    worker.stream.close()


def test_8_4_a_poll_that_was_cut_by_its_limit_leaves_its_partition_undrained(stream_place: StreamKind) -> None:
    send(stream_place, numbered(200), ["one"] * 200)
    log = Log()
    worker = Worker(stream_place, log)
    poll_until([worker], lambda: len(worker.owned) == N)
    while len(log.payloads()) < 200:
        if worker.poll(limit=8, timeout_s=1.0) and len(log.payloads()) < 200:
            (partition,) = (partition for partition, entries in log.read.items() if entries)
            assert partition not in worker.stream.find_drained()
    poll_until([worker], lambda: worker.all_drained)
    worker.stream.close()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 2))])
def test_8_4_of_a_drained_partition_all_was_returned_that_was_there_before_the_poll(
    stream_place: StreamKind, seed: int
) -> None:
    """The sender continues in the meantime; ``sent``: how many messages had certainly arrived at which time."""
    chance, stop, sent = random.Random(seed), threading.Event(), [(0.0, 0)]
    claims: list[tuple[Partition, int, int]] = []
    log = Log()
    worker = Worker(stream_place, log)
    poll_until([worker], lambda: len(worker.owned) == N)

    def load() -> None:
        sender = stream_place.sender()
        while not stop.is_set():
            n = sent[-1][1]
            sender.send(numbered(17, n), spread(n + 17)[n:])
            sent.append((time.monotonic(), n + 17))
            stop.wait(0.005)
        sender.close()

    loading = threading.Thread(target=load)
    loading.start()
    try:
        deadline = time.monotonic() + 2.0 + stream_place.late_s
        while time.monotonic() < deadline:
            before = time.monotonic() - stream_place.late_s
            worker.poll(limit=chance.choice((4, 40, 400)), timeout_s=0.02)
            n = max(n for moment, n in sent.copy() if moment <= before)
            claims += [(partition, n, len(log.read[partition])) for partition in worker.stream.find_drained()]
    finally:
        stop.set()
        loading.join()
    poll_until([worker], log.has(sent[-1][1]))
    assert any(n and read for _, n, read in claims)
    for partition, n, read in claims:
        missed = [body for _, body in log.read[partition][read:] if int(body or b"") < n]
        assert not missed, (partition, n, missed[:3])
    worker.stream.close()


def test_8_4_the_names_of_all_partitions_are_known_whoever_owns_them(stream_place: StreamKind) -> None:
    log = Log()
    workers = [Worker(stream_place, log), Worker(stream_place, log)]
    poll_until(workers, lambda: [len(worker.owned) for worker in workers] == [2, 2])
    poll_until(workers, lambda: None not in [worker.stream.partition_names() for worker in workers])
    for worker in workers:
        assert sorted(worker.stream.partition_names() or ()) == [str(index) for index in range(N)]
    poll_until(workers, lambda: all(worker.all_drained for worker in workers))
    for worker in workers:
        worker.stream.close()
