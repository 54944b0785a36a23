"""An erasure deletes messages of an entity from Redis streams; all others, and all readers, continue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from threading import Thread
from typing import Any

import pytest
import redis

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.ingest.streams import erased_messages
from skewless.infra.ingest.streams.redis_link import EventKeys, parse_position
from skewless.infra.ingest.streams.streams import Streams
from skewless.project import Project
from tests.integration.erasure.conftest import MakeRepo
from tests.worlds.erasure_doors import list_streams, send
from tests.worlds.erasures import ERASED, delete_in_sources, fill

ENTITY = {"user": ERASED}
RIGHTS = "@stream eval get set exists hset hsetnx hvals del expire persist rename"  # as in docs/operations.md
STREAM_ERASURE = pytest.mark.usefixtures("small_chunks")
Entries = list[tuple[bytes, dict[bytes, bytes]]]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy streams in chunks of two messages."""
    monkeypatch.setattr(erased_messages, "_CHUNK", 2)


@contextmanager
def sent(make_repo: MakeRepo) -> Iterator[tuple[Project, Any]]:
    """Open a project whose events of two partitions are read by half, and a client of its Redis."""
    repo = make_repo("sent")
    with Project(repo, stream_partitions=2) as project:
        fill(project)
        client: Any = redis.Redis.from_url(project.redis_url)
        send(project, "s", 12)
        project.stream(until_idle=True)
        send(project, "w", 9)
        delete_in_sources(repo)
        yield project, client
        client.close()


def owned(entries: Entries) -> int:
    return sum(json.loads(fields[b"e"])["user"] == ERASED for _, fields in entries)


def others(entries: Entries) -> Entries:
    return [entry for entry in entries if json.loads(entry[1][b"e"])["user"] != ERASED]


def erase_messages(streams: Streams) -> int:
    return erased_messages.erase_messages(streams, lambda text: ERASED in text, dry_run=False)


@STREAM_ERASURE
def test_readers_of_a_stream_notice_no_difference(make_repo: MakeRepo) -> None:
    with sent(make_repo) as (project, client):
        streams = list_streams(project, client)
        assert len(streams) == 2
        first, entries = streams[0], client.xrange(streams[0])
        client.xgroup_create(first, "theirs", entries[0][0])
        client.xreadgroup("theirs", "ann", {first: ">"}, count=4)
        facts = {
            each: (client.xrange(each), client.xinfo_stream(each), client.get(f"{each}:epoch")) for each in streams
        }
        pending = client.xpending_range(first, "theirs", "-", "+", 100)
        # A partition that only the log has, as those of a source that is not in the plan any more.
        fewer = project.settings.model_copy(update={"stream_partitions": 1})
        past = Streams(**{**vars(project.streams), "settings": fewer})
        assert erased_messages.erase_messages(past, lambda text: ERASED in text, dry_run=True) == 6 + 4
        assert project.erase(ENTITY).messages == 6 + 4
        for stream, (before, info, epoch) in facts.items():
            unread = [entry for entry in before if json.loads(entry[1][b"e"])["visit"].startswith("w")]
            assert owned(before) > owned(unread) > 0
            assert client.xrange(stream) == others(before)
            after = client.xinfo_stream(stream)
            assert after["last-generated-id"] == info["last-generated-id"]
            assert after["entries-added"] == info["entries-added"] - owned(unread)
            assert (client.get(f"{stream}:epoch"), client.ttl(stream)) == (epoch, -1)
        kept = {key for key, _ in client.xrange(first)}
        assert 0 < len(kept & {each["message_id"] for each in pending}) < len(pending)
        left = client.xpending_range(first, "theirs", "-", "+", 100)
        assert [each["message_id"] for each in left] == [p["message_id"] for p in pending if p["message_id"] in kept]
        assert {each["consumer"] for each in left} == {b"ann"}
        ((_, rest),) = client.xreadgroup("theirs", "ann", {first: ">"})
        assert rest == [entry for entry in client.xrange(first) if entry[0] > entries[4][0]]
        (counts,) = project.stream(until_idle=True)
        assert (counts.read, counts.accepted, counts.lag) == (5, 5, 0)
        send(project, "n", 1)
        last = {stream: parse_position(before[-1][0]) for stream, (before, *_) in facts.items()}
        assert any(parse_position(client.xrange(each)[-1][0]) > position for each, position in last.items())
        assert project.stream(until_idle=True)[0].accepted == 1
        assert project.parity(sample=100).ok


@STREAM_ERASURE
def test_a_stream_of_only_the_entity_stays_without_messages(make_repo: MakeRepo) -> None:
    repo = make_repo("alone")
    with Project(repo, stream_partitions=2) as project:
        project.apply()
        stream = EventKeys(project=project.applied.plan.project, source="visits").stream(1)  # which no log has
        client: Any = redis.Redis.from_url(project.redis_url)
        for fields in ({"e": json.dumps({"user": ERASED})}, {"no_message": ERASED}, {"e": f"[{ERASED}"}):
            client.xadd(stream, fields)
        last = client.xinfo_stream(stream)["last-generated-id"]
        assert erased_messages.erase_messages(project.streams, lambda text: ERASED in text, dry_run=True) == 3
        assert client.xlen(stream) == 3
        assert erase_messages(project.streams) == 3
        assert (client.xlen(stream), client.xinfo_stream(stream)["last-generated-id"]) == (0, last)
        assert erase_messages(project.streams) == 0
        client.close()


def test_senders_continue(make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 500
    monkeypatch.setattr(erased_messages, "_CHUNK", 50)
    with sent(make_repo) as (project, client):
        stream = list_streams(project, client)[1]
        before = client.xlen(stream) - owned(client.xrange(stream))
        message = json.dumps({"visit": "x", "user": "bob"})

        def push() -> None:
            with closing(redis.Redis.from_url(project.redis_url)) as other:
                for i in range(n):
                    other.xadd(stream, {"e": json.dumps({"user": ERASED}) if i % 10 == 0 else message})

        sender = Thread(target=push)
        sender.start()
        runs = 0
        while sender.is_alive():
            erase_messages(project.streams)
            runs += 1
        sender.join()
        erase_messages(project.streams)
        assert runs > 1
        entries = client.xrange(stream)
        assert (owned(entries), len(entries)) == (0, before + n - n // 10)


@STREAM_ERASURE
def test_an_interrupted_erasure_loses_no_message_and_is_repeated(
    make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sent(make_repo) as (project, client):
        before = {each: client.xrange(each) for each in list_streams(project, client)}
        read = erased_messages._read_chunks

        def fail(*arguments: Any) -> Iterator[Any]:  # noqa: ANN401 - of the function
            for number, chunk in enumerate(read(*arguments)):
                if number == 2 and client.exists(f"{arguments[1]}:copy"):
                    raise redis.ConnectionError("away")
                yield chunk

        with monkeypatch.context() as patch:
            patch.setattr(erased_messages, "_read_chunks", fail)
            with pytest.raises(StoreError, match="away"):
                erase_messages(project.streams)
        assert {each: client.xrange(each) for each in before} == before
        (copy,) = (f"{each}:copy" for each in before if client.exists(f"{each}:copy"))
        assert 0 < client.ttl(copy) <= 3_600
        assert erase_messages(project.streams) == sum(map(owned, before.values()))
        assert {each: client.xrange(each) for each in before} == {each: others(rows) for each, rows in before.items()}
        assert not client.exists(copy)


@STREAM_ERASURE
@pytest.mark.parametrize("meanwhile", ["expired", "another"])
def test_a_suspended_erasure_does_not_replace_a_stream(
    make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    with sent(make_repo) as (project, client):
        before = {each: client.xrange(each) for each in list_streams(project, client)}
        read = erased_messages._read_chunks

        def suspend(*arguments: Any) -> Iterator[Any]:  # noqa: ANN401 - of the function
            for number, chunk in enumerate(read(*arguments)):
                if number == 2 and client.exists(copy := f"{arguments[1]}:copy"):
                    if meanwhile == "expired":
                        client.delete(copy)
                    else:
                        with monkeypatch.context() as patch:
                            patch.setattr(erased_messages, "_read_chunks", read)
                            assert erase_messages(project.streams)
                yield chunk

        with monkeypatch.context() as patch:
            patch.setattr(erased_messages, "_read_chunks", suspend)
            with pytest.raises(ConflictError, match="by another process"):
                erase_messages(project.streams)
        after = {each: client.xrange(each) for each in before}
        assert {each: others(rows) for each, rows in after.items()} == {
            each: others(rows) for each, rows in before.items()
        }
        if meanwhile == "another":
            assert not any(map(owned, after.values()))


@STREAM_ERASURE
@pytest.mark.parametrize("command", ["rename", "xsetid", "xrange", None])
def test_a_user_without_rights_is_told_and_changes_nothing(make_repo: MakeRepo, command: str | None) -> None:
    with sent(make_repo) as (project, client):
        before = {each: client.xrange(each) for each in list_streams(project, client)}
        name, documented = f"limited_{command}", [*("-@all", "+@connection"), *(f"+{each}" for each in RIGHTS.split())]
        commands = ["+@all", f"-{command}"] if command else documented
        client.acl_setuser(name, enabled=True, passwords=["+pw"], keys=["sk:*"], commands=commands)
        address = project.redis_url.partition("://")
        try:
            limited = Streams(**{**vars(project.streams), "url": lambda: f"{address[0]}://{name}:pw@{address[2]}"})
            if command is None:
                assert erase_messages(limited) == sum(map(owned, before.values()))
                return
            with pytest.raises(StoreError, match="refuses a command") as raised:
                erase_messages(limited)
            assert "ACL SETUSER" in (raised.value.fix or "")
            assert {each: client.xrange(each) for each in before} == before
        finally:
            with suppress(redis.RedisError):
                client.acl_deluser(name)
