"""Shards that are split, merged, trimmed and throttled, in addition to the contract of all streams."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from plugins.kinesis.tests.kinesis_place import ENDPOINT, KinesisPlace
from skewless.contract.errors import StoreError
from skewless.infra.ingest.streams.port import StreamError
from skewless_kinesis.client import KinesisClient, KinesisSender
from tests.contract.streams import Log, N, Worker, numbered, poll_until, send, spread
from tests.servers.aws import REGION, AwsServer, running_aws
from tests.worlds.waiting import until

_LONG_AGO_US = 2 * 86_400_000_000


class Ordered(Worker):
    """Commits after each poll, and remembers the order of all messages across partitions."""

    def __init__(self, place: KinesisPlace, log: Log, order: list[bytes | None]) -> None:
        self.order = order
        super().__init__(place, log)

    def poll(self, limit: int = 1_000, timeout_s: float = 0.05) -> int:
        found = self.stream.poll(limit, timeout_s)
        for messages in found:
            assert self.log.owners[messages.partition] is self
            self.log.read[messages.partition] += zip(messages.positions, messages.payloads, strict=True)
            self.order += messages.payloads
        self.stream.commit(self.next_positions())
        return sum(len(messages.positions) for messages in found)


@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_each_key_stays_over_splits_and_merges(kinesis_place: KinesisPlace, seed: int) -> None:
    """Two workers; each message is sent while a shard is split or merged."""
    chance, log, order = random.Random(seed), Log(), list[bytes | None]()
    kinesis_place.lease_s = 10.0  # sends take their time
    workers = [Ordered(kinesis_place, log, order) for _ in range(2)]
    keys = spread(900)
    for turn in range(9):
        first = turn * 100
        send(kinesis_place, numbered(100, first), keys[first : first + 100])
        if turn < 8:
            reshard(kinesis_place, chance, turn)
        for worker in chance.sample(workers, k=2):
            worker.poll(limit=chance.choice((5, 1_000)))
    poll_until(workers, log.has(900))
    assert len(log.read) >= N + 8
    assert log.in_any_order() == sorted(numbered(900))
    log.assert_in_order()
    for key in set(keys):
        numbers = [int(body or b"") for body in order if keys[int(body or b"")] == key]
        assert all(one < two for one, two in pairwise(numbers)), key
    n_open = len(open_shards(kinesis_place))
    poll_until(workers, lambda: sum(len(worker.owned) for worker in workers) == n_open)
    poll_until(workers, lambda: {*(workers[0].stream.partition_names() or ())} == {p.name for p in log.owners})
    for worker in workers:
        worker.stream.close()


def open_shards(kinesis_place: KinesisPlace) -> list[dict[str, Any]]:
    """Return the shards that get new records, in the order of their hash keys."""
    shards = kinesis_place.aws.list_shards(StreamName=kinesis_place.name)["Shards"]
    found = [each for each in shards if "EndingSequenceNumber" not in each["SequenceNumberRange"]]
    return sorted(found, key=lambda each: int(each["HashKeyRange"]["StartingHashKey"]))


def reshard(kinesis_place: KinesisPlace, chance: random.Random, turn: int) -> None:
    """Split a shard, or merge two that are adjacent."""
    shards = open_shards(kinesis_place)
    number = chance.randrange(len(shards) - 1)
    one, two = (int(each["ShardId"].rpartition("-")[2]) for each in shards[number : number + 2])
    if turn % 2:
        kinesis_place.merge(one, two)
    else:
        kinesis_place.split(one)


def test_a_child_waits_until_the_log_has_its_parent(kinesis_place: KinesisPlace) -> None:
    log = Log()
    worker = Worker(kinesis_place, log)
    send(kinesis_place, numbered(100), spread(100))
    kinesis_place.split(0)
    send(kinesis_place, numbered(100, 100), spread(100))
    poll_until([worker], lambda: len(worker.owned) == N and len(worker.stream.find_drained()) == N - 1)
    assert worker.poll() == 0
    assert worker.stream.lag() is None
    assert len(log.payloads()) < 200
    # The watermark waits, too: the parent is not drained while its children have messages.
    assert "0" not in {partition.name for partition in worker.stream.find_drained()}
    assert "0" in (worker.stream.partition_names() or ())
    worker.stream.commit(worker.next_positions())
    poll_until([worker], log.has(200))
    assert log.in_any_order() == sorted(numbered(200))
    poll_until([worker], lambda: "0" not in (worker.stream.partition_names() or ()))
    worker.stream.close()


def test_positions_are_counted_and_stored_with_the_number_of_aws(kinesis_place: KinesisPlace) -> None:
    log = Log()
    send(kinesis_place, numbered(60), spread(60))
    worker = Worker(kinesis_place, log)
    poll_until([worker], log.has(60))
    for entries in log.read.values():
        assert [position for position, _ in entries] == list(range(len(entries)))
    worker.stream.commit(worker.next_positions())
    for name, record in kinesis_place.records("g").items():
        partition = next(each for each in log.read if each.name == name)
        ((end, number),) = record["after"].items()
        assert int(end) == record["committed"] == len(log.read[partition])
        assert int(number).bit_length() > 63
    worker.stream.close()


def test_4_2_a_restart_after_an_uncommitted_batch_reads_on_although_older_records_are_trimmed(
    kinesis_place: KinesisPlace, aws_server: AwsServer | None
) -> None:
    if aws_server is None:
        pytest.skip("only moto is told to trim")
    log = Log()
    send(kinesis_place, numbered(50), ["one"] * 50)
    killed = Worker(kinesis_place, log)
    poll_until([killed], log.has(30))
    killed.stream.close()
    (partition,) = (each for each, entries in log.read.items() if entries)
    n = len(log.payloads())
    aws_server.trim(kinesis_place.name, f"shardId-{int(partition.name):012}", n - 1)
    send(kinesis_place, numbered(20, 50), ["one"] * 20)
    worker = Worker(kinesis_place, log)
    poll_until([worker], log.has(70))
    assert log.in_any_order() == sorted(numbered(70))
    assert worker.stream.trouble is None
    worker.stream.close()


@pytest.mark.parametrize("seen_us", [_LONG_AGO_US, 0])
def test_records_that_were_trimmed_unread_are_a_hole_that_is_reported(
    kinesis_place: KinesisPlace, aws_server: AwsServer | None, seen_us: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if aws_server is None:
        pytest.skip("only moto is told to trim")
    log = Log()
    send(kinesis_place, numbered(40), ["one"] * 40)
    first = Worker(kinesis_place, log)
    poll_until([first], log.has(40))
    first.stream.commit(first.next_positions())
    first.stream.close()
    (partition,) = (each for each, entries in log.read.items() if entries)
    send(kinesis_place, numbered(10, 40), ["one"] * 10)
    if seen_us:
        aws_server.trim(kinesis_place.name, f"shardId-{int(partition.name):012}", 45)
    now_ns = time.time_ns
    monkeypatch.setattr("skewless_kinesis.stream.time.time_ns", lambda: now_ns() + seen_us * 1_000)
    worker = Worker(kinesis_place, log)
    with capture_logs() as logs:
        poll_until([worker], log.has(45 if seen_us else 50))
    lost = [entry for entry in logs if entry["event"] == "stream_positions_lost"]
    assert [(entry["partition"], entry["position"]) for entry in lost] == ([(partition.name, 40)] if seen_us else [])
    positions = [position for position, _ in log.read[partition]]
    assert positions[40:] == (list(range(41, 46)) if seen_us else list(range(40, 50)))
    assert log.in_any_order() == sorted(numbered(40) + numbered(5, 45) if seen_us else numbered(50))
    worker.stream.close()


def test_a_shard_that_aws_removed_unread_is_reported_once(
    kinesis_place: KinesisPlace, aws_server: AwsServer | None
) -> None:
    if aws_server is None:
        pytest.skip("only moto is told to remove shards")
    log = Log()
    worker = Worker(kinesis_place, log)
    poll_until([worker], lambda: len(worker.owned) == N)
    worker.stream.close()
    kinesis_place.split(0)
    aws_server.trim(kinesis_place.name, "shardId-000000000000", 0, remove=True)
    send(kinesis_place, numbered(40), spread(40))
    worker = Worker(kinesis_place, log)
    with capture_logs() as logs:
        poll_until([worker], log.has(40))
    assert [entry["partition"] for entry in logs if entry["event"] == "stream_positions_lost"] == ["0"]
    assert "0" not in kinesis_place.records("g")
    worker.stream.close()


@contextmanager
def failing(server: AwsServer | None, *faults: dict[str, object]) -> Iterator[AwsServer]:
    if server is None:
        pytest.skip("only moto fails as it is told")
    server.fail(*faults)
    try:
        yield server
    finally:
        server.fail()


@pytest.mark.parametrize("code", ["ProvisionedThroughputExceededException", "ExpiredIteratorException", "lost reply"])
@pytest.mark.parametrize("action", ["GetRecords", "GetShardIterator", "ListShards"])
def test_calls_that_fail_for_a_while_lose_nothing(
    kinesis_place: KinesisPlace, aws_server: AwsServer | None, action: str, code: str
) -> None:
    log = Log()
    worker = Worker(kinesis_place, log)
    with failing(aws_server, {"action": action, "code": code, "skip": 3, "n": 6}):
        for first in range(0, 90, 30):
            send(kinesis_place, numbered(30, first), spread(30))
            poll_until([worker], log.has(first + 30))
        poll_until([worker], lambda: worker.stream.trouble is None)
    assert log.in_any_order() == sorted(numbered(90))
    worker.stream.close()


def test_throttling_is_said_with_what_to_do(kinesis_place: KinesisPlace, aws_server: AwsServer | None) -> None:
    worker = Worker(kinesis_place, Log())
    throttled = {"action": "GetRecords", "code": "ProvisionedThroughputExceededException", "n": 1_000}
    with failing(aws_server, throttled):
        poll_until([worker], lambda: worker.stream.trouble)
        assert "throttles its callers" in str(worker.stream.trouble)
        assert "add shards" in str(worker.stream.trouble)
        assert worker.stream.find_drained() == {}
    poll_until([worker], lambda: worker.stream.trouble is None and worker.all_drained)
    worker.stream.close()


def test_a_stream_that_does_not_exist_is_waited_for(kinesis_place: KinesisPlace) -> None:
    log = Log()
    kinesis_place.aws.delete_stream(StreamName=kinesis_place.name)
    until(lambda: kinesis_place._status() is None)
    worker = Worker(kinesis_place, log)
    worker.poll()
    assert "aws kinesis create-stream --region eu-central-1 --stream-name" in str(worker.stream.trouble)
    kinesis_place.make()
    send(kinesis_place, numbered(10))
    poll_until([worker], log.has(10))
    worker.stream.close()


def test_wrong_credentials_end_a_worker_that_starts_and_stop_one_that_runs(
    kinesis_place: KinesisPlace, aws_server: AwsServer | None
) -> None:
    denied = {"action": "DescribeStreamSummary", "code": "UnrecognizedClientException", "n": 1_000}
    worker, log = Worker(kinesis_place, Log()), Log()
    running = Worker(kinesis_place, log, "h")
    poll_until([running], lambda: len(running.owned) == N)
    with failing(aws_server, denied):
        with pytest.raises(StreamError, match=r"refuses this caller: UnrecognizedClientException.*docs/kinesis.md"):
            worker.poll()
        poll_until([running], lambda: running.stream.trouble)
        assert "refuses this caller" in str(running.stream.trouble)
    send(kinesis_place, numbered(10))
    poll_until([running], log.has(10))
    for each in (worker, running):
        each.stream.close()


def test_without_credentials_the_fix_is_said(kinesis_place: KinesisPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    worker = Worker(kinesis_place, Log())
    with pytest.raises(StreamError, match=r"cannot be called without credentials.*set AWS_ACCESS_KEY_ID"):
        worker.poll()
    worker.stream.close()


def test_a_put_that_stores_a_part_is_completed_in_order(
    kinesis_place: KinesisPlace, aws_server: AwsServer | None
) -> None:
    log, keys = Log(), [f"k{number % 7}" for number in range(100)]
    partly = {"action": "PutRecords", "code": "partly", "n": 12}
    with failing(aws_server, partly) as server:
        sender = KinesisSender(REGION, kinesis_place.name)
        sender.send(numbered(100), keys)
        sender.close()
        assert server.fail()["PutRecords"] > 12
    worker = Worker(kinesis_place, log)
    poll_until([worker], log.has(100))
    assert log.in_any_order() == sorted(numbered(100))
    for entries in log.read.values():
        for key in set(keys):
            numbers = [int(body or b"") for _, body in entries if keys[int(body or b"")] == key]
            assert numbers == sorted(numbers)
    worker.stream.close()


def test_a_put_that_never_stores_all_is_an_error_with_a_fix(
    kinesis_place: KinesisPlace, aws_server: AwsServer | None
) -> None:
    sender = KinesisSender(REGION, kinesis_place.name, timeout_s=0.3)
    with (
        failing(aws_server, {"action": "PutRecords", "code": "partly", "n": 1_000}),
        pytest.raises(StoreError, match=r"has not stored .* ProvisionedThroughputExceededException.*add shards"),
    ):
        sender.send(numbered(30), [f"k{number}" for number in range(30)])
    sender.close()


def test_batches_of_a_put_have_the_size_that_aws_takes_and_each_key_once(
    kinesis_place: KinesisPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = list[tuple[int, int, int]]()
    real = KinesisClient.call

    def call(self: KinesisClient, name: str, **body: object) -> object:
        records = body.get("Records")
        if isinstance(records, Sequence):
            n_bytes = sum(len(each["Data"]) + len(each["PartitionKey"]) for each in records)
            sizes.append((len(records), n_bytes, len({each["PartitionKey"] for each in records})))
        return real(self, name, **body)

    monkeypatch.setattr(KinesisClient, "call", call)
    send(kinesis_place, [b"x"] * 1_200)
    send(kinesis_place, [b"y" * 900_000] * 13, ["", "k" * 300, *(f"k{number}" for number in range(11))])
    send(kinesis_place, numbered(5), ["one"] * 5)
    assert [n for n, _, _ in sizes] == [500, 500, 200, 5, 5, 3, 1, 1, 1, 1, 1]
    assert all(n_bytes <= 5 * 1024 * 1024 and n == n_keys for n, n_bytes, n_keys in sizes)
    log = Log()
    worker = Worker(kinesis_place, log)
    poll_until([worker], log.has(1_218))
    assert len(log.payloads()) == 1_218
    worker.stream.close()


def test_a_server_that_ends_takes_its_stream_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_aws(tmp_path) as server:
        monkeypatch.setenv(ENDPOINT, server.endpoint)
        place, log = KinesisPlace(tmp_path, server), Log()
        send(place, numbered(20))
        worker = Worker(place, log)
        poll_until([worker], log.has(20))
        old = worker.owned
        server.stop()
        poll_until([worker], lambda: worker.stream.trouble)
        assert "did not answer" in str(worker.stream.trouble)
        server.start()
        place.make()
        send(place, numbered(20, 20))
        poll_until([worker], log.has(40))
        assert worker.owned.isdisjoint(old)
        assert not any("/" in each.epoch for each in worker.owned)
        worker.stream.close()
