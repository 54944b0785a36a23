"""Behaviour of Redis Streams in addition to the contract of all streams."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.ingest.streams.redis_link import RedisSender, format_entry_id, parse_position
from skewless.infra.ingest.streams.redis_stream import RedisStream
from skewless.infra.platform.storage.lease_group import LeaseGroup
from skewless.infra.platform.storage.sqlite_database import SqliteDatabase
from tests.contract.streams import LEASE_S, Log, N, RedisPlace, Worker, numbered, poll_until, spread
from tests.reliability.losses import OlderCopy
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.servers.sentinels import SentinelSet
from tests.worlds.waiting import eventually, until


@pytest.fixture
def redis_place(valkey: Node, tmp_path: Path) -> RedisPlace:
    made = RedisPlace(valkey, tmp_path)
    made.recreate()
    return made


@pytest.fixture
def own_stream(tmp_path: Path) -> Iterator[RedisPlace]:
    with running(Node(program("valkey"), tmp_path, {"appendonly": "yes"})) as node:
        yield RedisPlace(node, tmp_path)


def send(redis_place: RedisPlace, payloads: list[bytes], keys: list[str]) -> None:
    sender = redis_place.sender()
    sender.send(payloads, keys)
    sender.close()


def test_a_position_is_made_of_the_id_of_an_entry() -> None:
    for entry_id in (b"0-0", b"0-1", b"1795613772516-0", b"1795613772516-4194303"):
        assert format_entry_id(parse_position(entry_id)).encode() == entry_id
    assert parse_position(b"1-4194303") + 1 == parse_position(b"2-0")


def test_a_worker_that_hung_longer_than_its_lease_returns_nothing_of_what_it_lost(redis_place: RedisPlace) -> None:
    log = Log()
    hung = Worker(redis_place, log)
    poll_until([hung], lambda: len(hung.owned) == N)
    # Another takes over and reads on while the first hangs.
    time.sleep(1.1 * LEASE_S)
    heir = Worker(redis_place, Log())
    poll_until([heir], lambda: len(heir.owned) == N)
    send(redis_place, numbered(100), spread(100))
    assert hung.poll(timeout_s=0.0) == 0
    assert not hung.owned
    assert len(hung.revocations) == N
    hung.stream.close()
    poll_until([heir], heir.log.has(100))
    heir.stream.close()


def test_the_partitions_of_a_worker_that_died_are_taken_over_after_its_lease(redis_place: RedisPlace) -> None:
    dead_log, log = Log(), Log()
    dead = Worker(redis_place, dead_log)
    poll_until([dead], lambda: len(dead.owned) == N)
    started = time.monotonic()
    heir = Worker(redis_place, log)
    poll_until([heir], lambda: len(heir.owned) == N)
    assert time.monotonic() - started > LEASE_S / 2
    heir.stream.close()
    assert dead.poll() == 0
    assert len(dead.revocations) == N
    dead.stream.close()


def test_what_a_worker_lets_go_is_free_at_once(redis_place: RedisPlace) -> None:
    for _ in range(3):
        log = Log()
        worker = Worker(redis_place, log)
        worker.poll(timeout_s=0.0)
        assert len(worker.owned) == N
        worker.stream.close()


def test_more_members_than_partitions_leave_some_without(redis_place: RedisPlace) -> None:
    log = Log()
    workers = [Worker(redis_place, log) for _ in range(N + 2)]
    poll_until(workers, lambda: sorted(len(worker.owned) for worker in workers) == [0, 0, 1, 1, 1, 1])
    for worker in workers:
        worker.stream.close()
    assert not log.owners


def test_a_stream_whose_key_alone_was_deleted_is_another_life(redis_place: RedisPlace) -> None:
    log = Log()
    send(redis_place, numbered(40), spread(40))
    worker = Worker(redis_place, log)
    poll_until([worker], log.has(40))
    [old] = [partition for partition in worker.owned if partition.name == "2"]
    redis_place.ask("DEL", redis_place.key(2))
    poll_until([worker], lambda: old in worker.revocations)
    poll_until([worker], lambda: len(worker.owned) == N)
    assert len(worker.revocations) == 1
    worker.stream.close()


def test_what_all_groups_have_committed_is_trimmed_but_for_what_is_to_stay(redis_place: RedisPlace) -> None:
    keep, log, other_log = 200, Log(), Log()
    worker = Worker(redis_place, log)
    worker.stream.close()
    worker.stream = redis_place.stream(worker, "g", keep=keep)
    other = Worker(redis_place, other_log, "h")
    poll_until([worker, other], lambda: len(worker.owned) == len(other.owned) == N)
    for first in range(0, 5_000, 100):
        send(redis_place, numbered(100, first), ["one"] * 100)
        poll_until([worker], log.has(first + 100))
        worker.stream.commit(worker.next_positions())
    [partition] = worker.next_positions()
    stream = redis_place.key(int(partition.name))
    assert redis_place.ask("XLEN", stream) == 5_000
    poll_until([other], other_log.has(5_000))
    other.stream.commit(other.next_positions())
    worker.stream.commit(worker.next_positions())
    kept = redis_place.ask("XLEN", stream)
    assert isinstance(kept, int)
    assert keep <= kept < 1_000  # whole nodes of about a hundred entries go
    for each in (worker, other):
        each.stream.close()


def test_lag_after_a_take_over_is_counted_and_never_too_low(redis_place: RedisPlace) -> None:
    log = Log()
    send(redis_place, numbered(50), ["one"] * 50)
    first = Worker(redis_place, log)
    poll_until([first], log.has(50))
    first.stream.close()
    send(redis_place, numbered(30, 50), ["one"] * 30)
    second = Worker(redis_place, log)
    second.poll(limit=N, timeout_s=0.0)
    assert second.stream.lag() == 80 - len(log.payloads())
    second.stream.close()


def test_a_server_that_hangs_is_waited_for(own_stream: RedisPlace) -> None:
    log = Log()
    assert isinstance(own_stream.server, Node)
    worker = Worker(own_stream, log)
    send(own_stream, numbered(10), spread(10))
    poll_until([worker], log.has(10))
    own_stream.server.freeze()
    assert worker.poll(timeout_s=0.1) == 0
    assert "did not answer" in (worker.stream.trouble or "")
    assert worker.stream.lag() is None
    worker.stream.commit(worker.next_positions())
    own_stream.server.thaw()
    send(own_stream, numbered(10, 10), spread(10))
    poll_until([worker], log.has(20))
    assert worker.stream.trouble is None
    log.assert_in_order()
    assert log.in_any_order() == sorted(numbered(20))
    worker.stream.close()


def test_a_commit_is_not_recorded_in_an_older_copy_so_that_its_new_messages_are_read(own_stream: RedisPlace) -> None:
    assert isinstance(own_stream.server, Node)
    log, copy, key = Log(), OlderCopy(own_stream.server), own_stream.key(0)
    worker = Worker(own_stream, log)
    sender = RedisSender(own_stream.url, project="p", source=own_stream.source, n_partitions=1)
    sender.send(numbered(10))
    poll_until([worker], log.has(10))
    worker.stream.commit(worker.next_positions())
    copy.take()
    sender.send(numbered(10, 10))
    sender.close()
    poll_until([worker], log.has(20))
    copy.restore()
    with own_stream.server.client() as client:
        info: Any = client.xinfo_stream(key)
        ms, _, seq = info["last-generated-id"].decode().partition("-")
        client.xadd(key, {"e": b"behind"}, id=f"{ms}-{int(seq) + 5_000}")
    worker.stream.commit(worker.next_positions())
    poll_until([worker], log.has(21))
    assert b"behind" in log.payloads()
    assert [partition for partition, _ in worker.losses] == ["0"]
    worker.stream.close()


def test_messages_that_another_owner_has_trimmed_are_no_older_copy(own_stream: RedisPlace) -> None:
    own_stream.ask("CONFIG", "SET", "stream-node-max-entries", "1")  # trims each message that may go
    hung, heir = Worker(own_stream, Log()), Worker(own_stream, Log())
    for worker in (hung, heir):
        worker.stream.close()
        worker.stream = own_stream.stream(worker, "g", keep=0)
    send(own_stream, numbered(10), ["one"] * 10)
    poll_until([hung], hung.log.has(10))
    time.sleep(1.1 * LEASE_S)
    poll_until([heir], heir.log.has(10))
    send(own_stream, numbered(10, 10), ["one"] * 10)
    poll_until([heir], heir.log.has(20))
    heir.stream.commit(heir.next_positions())
    assert hung.poll(timeout_s=0.0) == 0
    assert not hung.losses
    for worker in (hung, heir):
        worker.stream.close()


def test_a_deleted_message_is_no_older_copy(own_stream: RedisPlace) -> None:
    log = Log()
    worker = Worker(own_stream, log)
    send(own_stream, numbered(10), ["one"] * 10)
    poll_until([worker], log.has(10))
    [partition] = [each for each, read in log.read.items() if read]
    own_stream.ask("XDEL", own_stream.key(int(partition.name)), format_entry_id(log.read[partition][-1][0]))
    send(own_stream, numbered(10, 10), ["one"] * 10)
    poll_until([worker], log.has(20))
    assert not worker.losses
    worker.stream.close()


def test_a_server_that_is_not_there_at_first_is_waited_for(own_stream: RedisPlace) -> None:
    own_stream.away()
    log = Log()
    worker = Worker(own_stream, log)
    assert worker.poll(timeout_s=0.1) == 0
    assert worker.stream.trouble
    own_stream.back()
    send(own_stream, numbered(10), spread(10))
    poll_until([worker], log.has(10))
    worker.stream.close()


def test_a_worker_can_be_closed_while_its_server_is_away(own_stream: RedisPlace) -> None:
    log = Log()
    worker = Worker(own_stream, log)
    poll_until([worker], lambda: len(worker.owned) == N)
    own_stream.away()
    worker.stream.close()
    assert not log.owners


def test_a_password_that_is_wrong_is_an_error_that_does_not_show_it(redis_place: RedisPlace) -> None:
    url = redis_place.url.replace("redis://", "redis://user:hush@")
    stream = RedisStream(
        url, database=redis_place.database, project="p", source="s", n_partitions=N, owner=Worker(redis_place, Log())
    )
    with pytest.raises(StoreError) as caught:
        stream.poll(1, 0.0)
    assert "hush" not in str(caught.value)


def test_a_key_that_is_no_stream_is_an_error(redis_place: RedisPlace) -> None:
    redis_place.ask("SET", redis_place.key(0), "x")
    worker = Worker(redis_place, Log())
    with pytest.raises(StoreError, match="WRONGTYPE"):
        worker.poll()


def test_after_a_failover_the_new_master_is_read(watched: SentinelSet, tmp_path: Path) -> None:
    assert watched.master().ask("FLUSHALL")
    log, sender = Log(), RedisSender(watched.url, project="p", source="s", n_partitions=N, timeout_s=1.0)
    redis_place = RedisPlace(watched.master(), tmp_path)
    redis_place.url = watched.url
    redis_place.source = "s"
    worker = Worker(redis_place, log)
    sender.send(numbered(20), spread(20))
    poll_until([worker], log.has(20))
    watched.replicate()
    watched.fail_over()
    until(lambda: _sent(sender))
    poll_until([worker], lambda: b"after" in log.payloads())
    worker.stream.close()
    sender.close()


def _sent(sender: RedisSender) -> bool:
    try:
        sender.send([b"after"])
    except StoreError:
        return False
    return True


@pytest.mark.parametrize("epoch", ["", "../../../x", "\udcff\x00", "0123456789ABCDEF", "0" * 17])
def test_a_damaged_name_of_a_life_is_refused_since_it_would_name_a_folder(redis_place: RedisPlace, epoch: str) -> None:
    log = Log()
    worker = Worker(redis_place, log)
    poll_until([worker], lambda: len(worker.owned) == N)
    worker.stream.close()
    key = redis_place.key(0, ":epoch")
    redis_place.ask("SET", key, epoch.encode(errors="surrogateescape"))
    other = Worker(redis_place, log)
    with pytest.raises(StoreError, match="is corrupt, so that it is unknown which messages"):
        poll_until([other], lambda: len(other.owned) == N)
    other.stream.close()


def test_without_the_database_a_worker_returns_nothing_once_its_leases_may_have_expired(
    redis_place: RedisPlace, tmp_path: Path
) -> None:
    redis_place.database = SqliteDatabase(tmp_path / "busy.db", busy_s=0.05)
    log = Log()
    worker = Worker(redis_place, log)
    poll_until([worker], lambda: len(worker.owned) == N)
    writer = sqlite3.connect(tmp_path / "busy.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    poll_until([worker], lambda: worker.stream.trouble)
    assert "database is locked" in str(worker.stream.trouble)
    time.sleep(LEASE_S)
    send(redis_place, numbered(100), spread(100))
    assert worker.poll(timeout_s=0.2) == 0
    assert not worker.stream.find_drained()
    writer.execute("ROLLBACK")
    writer.close()
    poll_until([worker], log.has(100))
    assert worker.stream.trouble is None
    assert not worker.revocations  # nobody else has acquired them
    worker.stream.close()
    redis_place.database.close()


def test_a_worker_without_redis_lets_others_have_its_partitions(own_stream: RedisPlace) -> None:
    worker = Worker(own_stream, Log())
    poll_until([worker], lambda: len(worker.owned) == N)
    own_stream.away()
    poll_until([worker], lambda: worker.stream.trouble)
    deadline = time.monotonic() + 1.5 * LEASE_S
    while time.monotonic() < deadline:
        worker.poll()
    other = LeaseGroup(own_stream.database, f"stream {own_stream.source} g", N, LEASE_S)
    assert len(other.send_heartbeat([]).acquired) == N
    worker.stream.close()


def test_what_a_server_takes_only_in_part_keeps_its_order(tmp_path: Path) -> None:
    """A busy server refuses the first commands that reach it, and takes those that reach it later."""
    busy = "local t repeat t = redis.call('TIME') until t[1] * 1e6 + t[2] > tonumber(ARGV[1])"
    done, count = Event(), 1_500
    with running(Node(program("valkey"), tmp_path, {"busy-reply-threshold": "5"})) as node:

        def work() -> None:
            with node.client() as client:
                while not done.is_set():
                    client.eval(busy, 0, str(time.time_ns() // 1_000 + 30_000))

        sender = RedisSender(node.url, project="p", source="s", n_partitions=1)
        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            for start in range(0, count, 500):
                payloads = [b"%06d" % number + 5_000 * b"x" for number in range(start, start + 500)]
                eventually(partial(_was_sent, sender, payloads), bool)
            done.set()
            working.result()
        sender.close()
        with node.client() as client:
            entries: Any = client.xrange("sk:p:events:{s:0}")
    firsts = list(dict.fromkeys(int(fields[b"e"][:6]) for _, fields in entries))
    assert firsts == list(range(count))


def _was_sent(sender: RedisSender, payloads: list[bytes]) -> bool:
    try:
        sender.send(payloads, ["k"] * len(payloads))
    except StoreError:
        return False
    return True
