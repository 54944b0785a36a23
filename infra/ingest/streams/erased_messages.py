"""Deletes the messages of an erased entity from the Redis streams of push sources, and from the server's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from skewless.infra.ingest.streams.partition_worker import next_stream_position
from skewless.infra.ingest.streams.port import Partition
from skewless.infra.ingest.streams.redis_link import FIELD, EventKeys, RedisLink, format_entry_id
from skewless.infra.ingest.streams.streams import Streams
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.reads.online.clients import translate_errors
from skewless.infra.reads.online.store import is_redis

_TIMEOUT_S = 10.0
_CHUNK = 1_000
_MOST_UNREAD = 10_000  # that are added again while all clients of the server wait
# A server frees a block of messages only as a whole, and until then its files have deleted ones. So the stream is
# deleted, and the messages that the log lacks are added again with their ids; readers notice no difference.
# Arguments: the first id that the log lacks, the limit, and the ids of the entity's messages.
_REWRITE = """
local unread = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2] + 1)
if #unread > tonumber(ARGV[2]) then return 0 end
local erased, kept, info = {}, {}, {}
for i = 3, #ARGV do erased[ARGV[i]] = true end
for _, entry in ipairs(unread) do
  if not erased[entry[1]] then kept[#kept + 1] = entry end
end
local facts = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #facts, 2 do info[facts[i]] = facts[i + 1] end
if #kept == 0 then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
else
  redis.call('DEL', KEYS[1])
  for _, entry in ipairs(kept) do redis.call('XADD', KEYS[1], entry[1], unpack(entry[2])) end
end
local added = info['entries-added'] - #unread + #kept
redis.call('XSETID', KEYS[1], info['last-generated-id'], 'ENTRIESADDED', added, 'MAXDELETEDID',
  info['max-deleted-entry-id'])
return 1
"""


class ErasedMessages(NamedTuple):
    """The entity's messages that were deleted, and those that stay because too many messages wait for the workers."""

    deleted: int = 0
    waiting: int = 0


def erase_messages(streams: Streams, owns: Callable[[str], bool], *, dry_run: bool) -> ErasedMessages:
    """Delete messages of an entity; a stream that has some loses all messages that the log has, too.

    Args:
        streams: of the project.
        owns: whether a message is of the entity.
        dry_run: only count.

    Raises:
        StoreError: the streams' Redis, the database or the log failed; a repeated call continues.
    """
    deleted = waiting = 0
    if not is_redis(streams.stream_url):
        return ErasedMessages()
    with closing(RedisLink(streams.stream_url, _TIMEOUT_S)) as link, translate_errors(streams.stream_url):
        client = link.client()
        for source, index in sorted(_list_partitions(streams)):
            keys = EventKeys(project=streams.plan.project, source=source)
            ids = [key for key, text in _read_messages(client, keys.stream(index)) if owns(text)]
            is_done = bool(ids) and (dry_run or _rewrite(client, streams, keys, index, ids))
            deleted += len(ids) * is_done
            waiting += len(ids) * (not is_done)
    return ErasedMessages(deleted, waiting)


def _list_partitions(streams: Streams) -> set[tuple[str, int]]:
    """Return source and number of each stream that the project has or had."""
    logs = [name.split("/") for name in Catalog(streams.state.database).partitions() if name.startswith("events/")]
    past = {(parts[1], int(parts[3])) for parts in logs if parts[3].isdigit()}
    numbers = range(streams.settings.stream_partitions)
    return past | {(source.name, i) for source in streams.plan.sources if source.kind == "push" for i in numbers}


def _read_messages(client: Any, stream: str) -> Iterator[tuple[bytes, str]]:  # noqa: ANN401 - redis-py's are untyped
    start = "-"
    while entries := client.execute_command("XRANGE", stream, start, "+", "COUNT", _CHUNK):
        yield from ((key, (fields.get(FIELD) or b"").decode(errors="replace")) for key, fields in entries)
        start = f"({entries[-1][0].decode()}"


def _rewrite(client: Any, streams: Streams, keys: EventKeys, index: int, ids: list[bytes]) -> bool:  # noqa: ANN401 - as above
    """Rewrite a stream without some messages; return whether few enough messages wait for the workers."""
    epoch = (client.get(keys.epoch(index)) or b"").decode()
    log = PartitionLog(streams.state, Partition(name=str(index), epoch=epoch).log_name(keys.source))
    first = format_entry_id(next_stream_position(log) or 0)
    return bool(client.eval(_REWRITE, 1, keys.stream(index), first, _MOST_UNREAD, *ids))
