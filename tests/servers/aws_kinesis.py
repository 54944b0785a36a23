"""Mends moto's Kinesis where AWS documents something else: resharding, ends of shards, lag, and sequence numbers.

moto moves the records of a shard that is split, sends new records to closed shards, never ends a shard, and calls a
reader drained whose next record has the same millisecond. Its sequence numbers begin with 1; AWS's have 186 bits.
"""

from __future__ import annotations

import random
from typing import Any

from moto.kinesis.models import InvalidArgumentError, KinesisBackend, Shard, Stream, kinesis_backends
from moto.kinesis.utils import compose_shard_iterator, decompose_shard_iterator

_FIRST = 1 << 185
_STEP = 1 << 40


def mend_kinesis() -> None:
    """Replace the methods of moto that differ."""
    Shard.put_record = _put_record
    Shard.get_records = _get_records
    Stream.get_shard_for_key = _get_shard_for_key
    Stream.split_shard = _split_shard
    Stream.merge_shards = _merge_shards
    KinesisBackend.get_records = _get_records_of_iterator


def trim(order: dict[str, Any]) -> None:
    """Remove the first records of a shard, as at the end of their retention; or the shard, if it is closed."""
    (backend,) = (each for each in kinesis_backends["123456789012"].values() if order["stream"] in each.streams)
    shards = backend.streams[order["stream"]].shards
    records = shards[order["shard"]].records
    for number in list(records)[: order["n"]]:
        del records[number]
    if order.get("remove"):
        del shards[order["shard"]]


def _put_record(self: Any, partition_key: str, data: str, explicit_hash_key: str) -> str:  # noqa: ANN401
    from moto.kinesis.models import Record  # noqa: PLC0415

    self.last = getattr(self, "last", _FIRST) + random.randrange(1, _STEP)
    self.records[self.last] = Record(partition_key, data, self.last, explicit_hash_key)
    return str(self.last)


def _get_records(self: Any, last_sequence_id: str, limit: int | None) -> tuple[list[Any], int, int]:  # noqa: ANN401
    waiting = [record for number, record in self.records.items() if number > int(last_sequence_id)]
    found = waiting[: limit or 10_000]
    behind_ms = max(1, int((waiting[-1].created_at - found[-1].created_at) * 1_000)) if len(found) < len(waiting) else 0
    return found, found[-1].sequence_number if found else int(last_sequence_id), behind_ms


def _get_records_of_iterator(
    self: Any,  # noqa: ANN401
    stream_arn: str | None,
    shard_iterator: str,
    limit: int | None,
) -> tuple[str | None, list[Any], int]:
    stream_name, shard_id, last = decompose_shard_iterator(shard_iterator)
    shard = self.describe_stream(stream_arn, stream_name).get_shard(shard_id)
    found, last_number, behind_ms = shard.get_records(last, limit)
    has_ended = not shard.is_open and not behind_ms
    return None if has_ended else compose_shard_iterator(stream_name, shard, last_number), found, behind_ms


def _get_shard_for_key(self: Any, partition_key: str, explicit_hash_key: str) -> Any:  # noqa: ANN401
    from moto.utilities.utils import md5_hash  # noqa: PLC0415

    place = int(explicit_hash_key or int(md5_hash(partition_key.encode()).hexdigest(), 16))
    return next(
        each for each in self.shards.values() if each.is_open and each.starting_hash <= place <= each.ending_hash
    )


def _split_shard(self: Any, shard_to_split: str, new_starting_hash_key: str) -> None:  # noqa: ANN401
    shard, middle = _close(self, shard_to_split), int(new_starting_hash_key)
    for first, last in ((shard.starting_hash, middle - 1), (middle, shard.ending_hash)):
        _add(self, first, last, parent=shard.shard_id)


def _merge_shards(self: Any, shard_to_merge: str, adjacent_shard_to_merge: str) -> None:  # noqa: ANN401
    one, two = _close(self, shard_to_merge), _close(self, adjacent_shard_to_merge)
    first, last = min(one.starting_hash, two.starting_hash), max(one.ending_hash, two.ending_hash)
    _add(self, first, last, parent=one.shard_id, adjacent_parent=two.shard_id)


def _close(stream: Any, name: str) -> Any:  # noqa: ANN401
    shard = stream.shards[name]
    if not shard.is_open:
        raise InvalidArgumentError(f"Shard {name} has already been merged or split")
    shard.is_open = False
    return shard


def _add(stream: Any, first: int, last: int, **parents: str) -> None:  # noqa: ANN401
    number = 1 + max(int(name.rpartition("-")[2]) for name in stream.shards)
    shard = Shard(number, first, last, **parents)
    stream.shards[shard.shard_id] = shard
