"""Event streams in Redis: their keys, senders, and a connection that opens on first use and tolerates outages.

All keys of one partition have one hash tag, so that a cluster stores them in one slot::

    sk:P:events:{SOURCE:0}                    the messages: a stream whose entries have the field "e"
    sk:P:events:{SOURCE:0}:epoch              the epoch of the stream
    sk:P:events:{SOURCE:0}:committed          the next position to read, by group
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - redis-py's own, which is not an OSError
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    TimeoutError,  # noqa: A004 - as above
    TryAgainError,
)
from redis.retry import Retry

from skewless.contract.errors import RequestError, StoreError
from skewless.contract.settings import Settings
from skewless.contract.spec import LogPolicy
from skewless.contract.windows.view import EventSource
from skewless.infra.ingest.streams.port import EventSender, StreamError, require_connector
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.platform.telemetry.redaction import display_url
from skewless.infra.reads.online.clients import RedisAddress, close_client, open_client, translate_errors

FIELD = b"e"
_SEQ_BITS = 22
_MOST_SEQ = (1 << _SEQ_BITS) - 1
_FINAL = (AuthenticationError, AuthorizationError)  # redis-py derives them from ConnectionError
_TEMPORARY = (
    ClusterDownError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    TimeoutError,
    TryAgainError,
)
_log = EventLogger()
_CHUNK = 1_000
_LOG_S = 4.0  # longest wait for a required log: less than callers commonly wait for a reply
_LOG_CHECK_S = 0.02
# Arguments: the stream's largest length or nothing, the number of strings of an entry, and the strings of all entries.
_ADD_ENTRIES = """
local last
for i = 3, #ARGV, ARGV[2] do
  if ARGV[1] == '' then
    last = redis.call('XADD', KEYS[1], '*', unpack(ARGV, i, i + ARGV[2] - 1))
  else
    last = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, i, i + ARGV[2] - 1))
  end
end
return last
"""
# Returns what a group has committed, and whether the stream has an entry.
_PROGRESS = """
return {redis.call('HGET', KEYS[2], ARGV[1]), #redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])}
"""


@dataclass(frozen=True, kw_only=True)
class EventKeys:
    """The keys of one stream for one group.

    >>> EventKeys(project="p", source="clicks", group="g").stream(3)
    'sk:p:events:{clicks:3}'
    """

    project: str
    source: str
    group: str = ""

    def stream(self, index: int) -> str:
        """Return the key of a partition's messages."""
        return f"sk:{self.project}:events:{{{self.source}:{index}}}"

    def epoch(self, index: int) -> str:
        """Return the key of a partition's epoch."""
        return f"{self.stream(index)}:epoch"

    def committed(self, index: int) -> str:
        """Return the key of a partition's committed positions, by group."""
        return f"{self.stream(index)}:committed"


def worker_group(project: str) -> str:
    """Return the name of a project's group of stream workers."""
    return f"skewless-{project}"


def parse_position(entry_id: bytes) -> int:
    """Return the position of an entry; positions are ordered like the entries.

    >>> parse_position(b"3-5")
    12582917
    """
    ms, _, seq = entry_id.partition(b"-")
    return (int(ms) << _SEQ_BITS) + int(seq)


def format_entry_id(position: int) -> str:
    """Return the lowest entry id with at least a position.

    >>> format_entry_id(12582917)
    '3-5'
    """
    return f"{position >> _SEQ_BITS}-{position & _MOST_SEQ}"


def add_entries(
    client: Any,  # noqa: ANN401 - redis-py's clients are untyped
    stream: str,
    entries: Sequence[Sequence[bytes | str]],
    most: int | None = None,
) -> None:
    """Append entries to a stream: all or none, so that their order stays if a call is repeated.

    Of several commands, a server that is loading or busy can refuse the first and take the next.

    Args:
        client: of ``RedisLink``, or its pipeline, which may call this once for each stream.
        entries: at least one; each has as many names and values as the others.
        most: the stream is cut to about so many entries; None: it is not.
    """
    strings = [string for entry in entries for string in entry]
    # Not its method `eval`, which a cluster's pipeline does not have.
    client.execute_command("EVAL", _ADD_ENTRIES, 1, stream, "" if most is None else most, len(entries[0]), *strings)


class RedisLink:
    """One client, used from one thread.

    Args:
        url: as in the setting ``redis_url``.
        timeout_s: the timeout of a reply, in seconds.

    Raises:
        StoreError: it is not the URL of a Redis.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._address = RedisAddress.parse(url)
        self._timeout_s = timeout_s
        self._client: Any = None
        self.trouble: str | None = None

    @property
    def is_single_server(self) -> bool:
        """Whether all keys are on one server, so that one command may name several."""
        return self._address.kind != "cluster"

    def client(self) -> Any:  # noqa: ANN401 - redis-py's clients are untyped
        """Return the client; open it if needed."""
        if self._client is None:
            client = open_client(self._address, self._timeout_s)
            # Callers repeat their requests themselves, and a message must not be sent twice by an automatic retry.
            client.set_retry(Retry(NoBackoff(), 0))
            self._client = client
        return self._client

    @contextmanager
    def tolerate_outage(self) -> Iterator[None]:
        """Run a block; if the server is unavailable, end the block early and set ``trouble``.

        Raises:
            StreamError: the error is permanent.
        """
        try:
            yield
            self.trouble = None
        except RedisError as error:
            if isinstance(error, _FINAL) or not isinstance(error, _TEMPORARY):
                raise self._permanent_error(error) from error
            self._note_outage(error)

    def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            close_client(self._client)
            self._client = None

    def _permanent_error(self, cause: RedisError) -> StreamError:
        try:
            with translate_errors(self._address.url):
                raise cause
        except StoreError as error:
            return StreamError(error.thing, error.problem, value=error.value, fix=error.fix)

    def _note_outage(self, error: Exception) -> None:
        if self.trouble is None:
            _log.warning("stream_unavailable", redis=display_url(self._address.url), error=str(error))
        self.trouble = f"Redis at {display_url(self._address.url)} did not answer: {error}"
        if not self.is_single_server:
            self.close()  # cluster nodes may return with other addresses


def open_sender(
    source: EventSource, settings: Settings, *, project: str, redis_url: str, log: LogPolicy = "best_effort"
) -> EventSender:
    """Return a sender for a source's stream.

    Args:
        source: of the events.
        settings: of the project.
        project: name of the project.
        redis_url: of the streams of push sources.
        log: ``required``: a send returns when the log has the messages, not only the stream.

    Raises:
        DefinitionError: the connector of the source's kind is not installed, or a setting is invalid.
        RequestError: the source's messages are not JSON, or the log is required and it is not a push source.
    """
    if source.format != "json":
        raise RequestError(
            f"event source {source.name!r}",
            "has messages that skewless reads and does not write",
            value=source.format,
            fix=f"send them to topic {source.topic!r} with a serializer of the schema registry",
        )
    if source.kind != "push":
        if log == "required":
            fix = "omit `log`: its stream keeps events"
            raise RequestError(f"event source {source.name!r}", "is not a push source", value=source.kind, fix=fix)
        return require_connector(source.kind).open_sender(source, settings)
    return RedisSender(
        redis_url,
        project=project,
        source=source.name,
        n_partitions=settings.stream_partitions,
        group=worker_group(project) if log == "required" else "",
    )


class RedisSender:
    """Implements ``EventSender``; the CRC-32 of a key chooses its partition.

    Args:
        url: as in the setting ``redis_url``.
        project: name of the project.
        source: name of the event source.
        n_partitions: the same number as its readers use.
        group: of the workers that must have logged the messages before a send returns; empty: nobody.
        timeout_s: the timeout of a reply, in seconds.
    """

    def __init__(
        self, url: str, *, project: str, source: str, n_partitions: int, group: str = "", timeout_s: float = 5.0
    ) -> None:
        self._keys = EventKeys(project=project, source=source, group=group)
        self._n = n_partitions
        self._url = url
        self._link = RedisLink(url, timeout_s)
        self._next_index = 0

    def send(self, payloads: Sequence[bytes], keys: Sequence[str] | None = None) -> None:
        """Send messages; see ``EventSender``."""
        last_ids: list[tuple[int, bytes]] = []  # by partition, of the entries that were added together
        with translate_errors(self._url):
            client = self._link.client()
            for start in range(0, len(payloads), _CHUNK):
                entries: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
                for number in range(start, min(start + _CHUNK, len(payloads))):
                    index = self._index(None if keys is None else keys[number])
                    entries[index].append((FIELD, payloads[number]))
                pipe = client.pipeline(transaction=False)
                for index, each in entries.items():
                    add_entries(pipe, self._keys.stream(index), each)
                last_ids += zip(entries, pipe.execute(), strict=True)
            if self._keys.group:
                self._wait_for_log(client, last_ids)

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def _wait_for_log(self, client: Any, last_ids: Sequence[tuple[int, bytes]]) -> None:  # noqa: ANN401 - as above
        """Return when the log has all entries up to some, in each partition.

        A position alone proves nothing: an older copy of Redis has lost entries, and continues with later ids.
        But a stream that still has the entry has lost none before it, and workers commit what they have logged.
        """
        thing, deadline = f"log of event source {self._keys.source!r}", time.monotonic() + _LOG_S
        while True:
            pipe = client.pipeline(transaction=False)
            for index, entry_id in last_ids:
                names = (self._keys.stream(index), self._keys.committed(index))
                pipe.execute_command("EVAL", _PROGRESS, len(names), *names, self._keys.group, entry_id)
            waiting = []
            for (index, entry_id), (committed, n) in zip(last_ids, pipe.execute(), strict=True):
                if not n:
                    problem = "may lack the events: their stream has lost them, or stream_keep is too small"
                    raise StoreError(thing, problem, fix="send them again")
                if int(committed or 0) <= parse_position(entry_id):
                    waiting.append((index, entry_id))
            if not waiting:
                return
            if time.monotonic() > deadline:
                fix = "run `skewless stream`, and send them again"
                raise StoreError(thing, f"does not have the events after {_LOG_S:.0f} s", fix=fix)
            last_ids = waiting
            time.sleep(_LOG_CHECK_S)

    def _index(self, key: str | None) -> int:
        if key is not None:
            # Not `hash`, which differs between processes.
            return crc32(key.encode()) % self._n
        # Messages without a key are spread round-robin.
        self._next_index += 1
        return self._next_index % self._n
