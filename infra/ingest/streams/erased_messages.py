"""Deletes the messages of an erased entity from the Redis streams of push sources, and from the server's memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from skewless.contract.errors import ConflictError
from skewless.infra.ingest.streams.redis_link import FIELD, EventKeys, RedisLink, parse_position
from skewless.infra.ingest.streams.streams import Streams
from skewless.infra.log.catalog import Catalog
from skewless.infra.reads.online.clients import translate_errors
from skewless.infra.reads.online.store import is_redis

_TIMEOUT_S = 10.0
_CHUNK = 1_000
_FIRST_ID = "0-1"  # of an entry with the token of a copy, which it lacks in the end
# A server frees a block of messages only as a whole: until then, its memory and its files have deleted ones. So other
# messages are copied with their ids, and the copy replaces the stream, with its counters and its consumer groups.
# Arguments: the token of the copy, first and last id of a chunk, the number of unread messages that the copy lacks, the
# latest id that a message had which was deleted, and the ids to skip. Returns 0 if the copy has expired, or another
# process has begun or finished its own.
_COPY = """
local mark = redis.call('XRANGE', KEYS[2], '0-1', '0-1')[1]
if not mark or mark[2][2] ~= ARGV[1] then return 0 end
local erased = {}
for i = 6, #ARGV do erased[ARGV[i]] = true end
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[3])) do
  if not erased[entry[1]] then redis.call('XADD', KEYS[2], entry[1], unpack(entry[2])) end
end
if ARGV[3] ~= '+' then return 1 end
local function facts(list)
  local found = {}
  for i = 1, #list, 2 do found[list[i]] = list[i + 1] end
  return found
end
for _, each in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = facts(each)
  redis.call('XGROUP', 'CREATE', KEYS[2], group['name'], group['last-delivered-id'])
  for _, entry in ipairs(redis.call('XPENDING', KEYS[1], group['name'], '-', '+', group['pending'])) do
    redis.call('XCLAIM', KEYS[2], group['name'], entry[2], 0, entry[1], 'IDLE', entry[3], 'RETRYCOUNT', entry[4],
      'FORCE', 'JUSTID')
  end
end
redis.call('XDEL', KEYS[2], '0-1')
local info = facts(redis.call('XINFO', 'STREAM', KEYS[1]))
redis.call('XSETID', KEYS[2], info['last-generated-id'], 'ENTRIESADDED', info['entries-added'] - ARGV[4],
  'MAXDELETEDID', ARGV[5])
redis.call('PERSIST', KEYS[2])
redis.call('RENAME', KEYS[2], KEYS[1])
return 1
"""
_LEFT_S = 3_600  # after which the copy of an interrupted call expires


def erase_messages(streams: Streams, owns: Callable[[str], bool], *, dry_run: bool) -> int:
    """Delete messages of an entity, read or not; return how many.

    Readers and senders of the streams continue, and notice no other difference.

    Args:
        streams: of the project.
        owns: whether a message is of the entity.
        dry_run: only count.

    Raises:
        StoreError: the streams' Redis or the database failed, or may not be written; a repeated call continues.
        ConflictError: another process erases messages, because this one was suspended for too long.
    """
    if not is_redis(streams.stream_url):
        return 0
    with closing(RedisLink(streams.stream_url, _TIMEOUT_S)) as link, translate_errors(streams.stream_url):
        client, deleted = link.client(), 0
        for source, index in sorted(_list_partitions(streams)):
            keys = EventKeys(project=streams.plan.project, source=source)
            found = sum(len(erased) for *_, erased in _read_chunks(client, keys.stream(index), owns))
            deleted += found if dry_run or not found else _rewrite(client, keys, index, owns)
    return deleted


def _list_partitions(streams: Streams) -> set[tuple[str, int]]:
    """Return source and number of each stream that the project has or had."""
    logs = [name.split("/") for name in Catalog(streams.state.database).partitions() if name.startswith("events/")]
    past = {(parts[1], int(parts[3])) for parts in logs if parts[3].isdigit()}
    numbers = range(streams.settings.stream_partitions)
    return past | {(source.name, i) for source in streams.plan.sources if source.kind == "push" for i in numbers}


def _read_chunks(
    client: Any,  # noqa: ANN401 - redis-py's clients are untyped
    stream: str,
    owns: Callable[[str], bool],
) -> Iterator[tuple[str, str, list[bytes]]]:
    """Yield first and last id of each chunk of a stream, and the ids of the entity's messages in it."""
    start, end = "-", ""
    while end != "+":
        entries = client.execute_command("XRANGE", stream, start, "+", "COUNT", _CHUNK)
        end = "+" if len(entries) < _CHUNK else entries[-1][0].decode()
        yield start, end, [key for key, fields in entries if any(owns(_decode(value)) for value in fields.values())]
        start = f"({end}"


def _rewrite(client: Any, keys: EventKeys, index: int, owns: Callable[[str], bool]) -> int:  # noqa: ANN401 - as above
    """Replace a stream by a copy without the entity's messages; return how many there were."""
    stream, deleted, unread = keys.stream(index), 0, 0
    copy, token = f"{stream}:copy", secrets.token_hex(8)
    next_position = min(map(int, client.hvals(keys.committed(index))), default=0)
    last = client.xinfo_stream(stream)["max-deleted-entry-id"]
    client.delete(copy)
    client.xadd(copy, {FIELD: token}, id=_FIRST_ID)
    client.expire(copy, _LEFT_S)
    for start, end, erased in _read_chunks(client, stream, owns):
        deleted += len(erased)
        # The lag is what was added and not read: a worker would wait for these in vain.
        unread += sum(parse_position(key) >= next_position for key in erased)
        last = max([last, *erased], key=parse_position)
        if not client.eval(_COPY, 2, stream, copy, token, start, end, unread, last, *erased):
            raise ConflictError(f"stream {stream!r}", "is being erased by another process", fix="run it again")
    return deleted


def _decode(value: bytes) -> str:
    return value.decode(errors="replace")
