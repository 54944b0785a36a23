"""The writing side of an online store in a DynamoDB table: each write is one conditional call for one key."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.contract.rows import RANK_BYTES
from skewless.contract.status import BoolArray
from skewless.infra.reads.online.port import LOST, Binaries, Letters, Marker
from skewless_dynamodb.state_update import append_update
from skewless_dynamodb.table import (
    ITEMS_PER_CALL,
    NO_ITEM,
    DynamoTable,
    Item,
    marker_key,
    marker_of,
    oldest,
    value_key,
)

_WRITE_S = 10.0
_LIFE = b"life"  # the key of an item that a table has until it is emptied or replaced
_CONDITION, _VALUES = "ConditionExpression", "ExpressionAttributeValues"
Action: TypeAlias = tuple[str, dict[str, Any]]
_CHANGED = "ConditionalCheckFailed"


class DynamoStore:
    """Implements ``OnlineStore``: the writing side.

    Raises:
        StoreError: the table is missing, or refuses this caller.
    """

    def __init__(self, url: str) -> None:
        self._table = DynamoTable(url, _WRITE_S)
        self._table.check()
        self._lives: dict[str, bytes] = {}  # of the table in which a marker was read

    def put(self, keys: Binaries, rows: Binaries) -> int:
        """Write each row unless the store holds one of a higher or equal rank."""
        versions: dict[bytes, list[bytes]] = defaultdict(list)
        for key, row in zip(_each(keys), _each(rows), strict=True):
            versions[key].append(row)
        return sum(self._table.each(self._put_versions, versions.items()))

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the value of each key, in order; None: no value."""
        return self._table.read(_each(keys), [])[0]

    def replace(
        self,
        keys: Binaries,
        old: Sequence[bytes | None],
        new: Binaries,
        heads: Sequence[bytes] | None = None,
    ) -> BoolArray:
        """Replace values that have not changed since they were read; return which."""
        keys, new, current = _each(keys), _each(new), self.get(keys)

        def replace(place: int) -> bool:
            value, before = current[place] or b"", old[place] or b""
            is_same = len(value) == len(before) and value.startswith(before if heads is None else heads[place])
            return is_same and self._write_value(keys[place], value, new[place])

        return np.array(self._table.each(replace, range(len(keys))), dtype=np.bool_)

    def append(self, keys: Binaries, updates: Binaries, marker: tuple[str, int | None]) -> Letters:
        """Append records to states; return a result letter for each key.

        A state is read, the marker is read after it, and the state is written if it has not changed. So a table that
        was emptied before the write is noticed by its marker or by the state.
        """
        keys, updates, letters = _each(keys), _each(updates), np.zeros(len(keys), dtype=np.uint8)
        attempts = self._table.attempts()
        while not letters.all():
            next(attempts)
            places = np.flatnonzero(letters == 0).tolist()
            states = dict(zip(places, self.get([keys[place] for place in places]), strict=True))
            self._check_minimum(self._read_marks([marker[0]]), dict([marker]))

            def append(place: int, states: Mapping[int, bytes | None] = states) -> int:
                letter, state = append_update(states[place], updates[place])
                is_done = state is None or self._write_value(keys[place], states[place], state)
                return letter if is_done else 0

            letters[places] = self._table.each(append, places)
        return letters

    def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition is certainly applied, or None."""
        found = self._table.snapshot([_LIFE, marker_key(name)])
        while _LIFE not in found:
            self._table.write({"k": {"B": _LIFE}, "v": {"B": secrets.token_bytes(16)}}, NO_ITEM)
            found = self._table.snapshot([_LIFE, marker_key(name)])
        self._lives[name] = found[_LIFE]["v"]["B"]
        mark = oldest([marker_of(found.get(marker_key(name)))])
        return None if mark is None else mark.position

    def read_markers(self, names: Sequence[str]) -> list[Marker | None]:
        """Return markers by name."""
        marks = self._read_marks(names)
        return [oldest([marks[name]]) for name in names]

    def set_markers(self, marks: Mapping[str, Marker], expected: Mapping[str, int | None] | None = None) -> None:
        """Record applied positions; a table that is not the one that ``marker`` read refuses them."""
        lives = {self._lives[name] for name in marks if name in self._lives}
        self._change_marks(marks, expected or {}, lives)

    def refresh_markers(self, marks: Mapping[str, Marker]) -> None:
        """Record new watermarks of markers that have the given positions at least."""
        self._change_marks(marks, {name: mark.position for name, mark in marks.items()}, set())

    def publish(self, key: bytes, text: bytes) -> None:
        """Set a key that servers read."""
        self._table.write(_item(key, text))

    def remove(self, keys: Sequence[bytes]) -> int:
        """Delete the values of keys; return how many there were."""
        return sum(self._table.each(self._table.remove, map(value_key, keys)))

    def delete(self, prefix: str) -> int:
        """Delete every key with a prefix, markers first, in batches; return how many there were."""
        marks, values = marker_key(prefix), value_key(prefix.encode())
        deleted = sum(sum(self._table.each(self._table.remove, keys)) for keys in self._scan(marks))
        for keys in self._scan(values):
            views: dict[bytes, list[bytes]] = defaultdict(list)
            for key in keys:
                views[b":".join(key[1:].split(b":", 3)[:3]) + b":applied"].append(key)
            for name, some in views.items():
                chunks = [some[i : i + ITEMS_PER_CALL - 1] for i in range(0, len(some), ITEMS_PER_CALL - 1)]
                deleted += sum(self._delete_unless(b"m" + name, chunk) for chunk in chunks)
        # Those of states again: if this process was suspended, a worker may have set them meanwhile.
        again = ([key for key in keys if b"applied/" in key] for keys in self._scan(marks))
        return deleted + sum(sum(self._table.each(self._table.remove, keys)) for keys in again)

    def clock_offset_us(self) -> int:
        """Return DynamoDB's clock minus this machine's clock, in microseconds."""
        return self._table.clock_offset_us()

    def close(self) -> None:
        """Close the connections."""
        self._table.close()

    def _put_versions(self, versions: tuple[bytes, list[bytes]]) -> int:
        key, rows = versions
        newer = "attribute_not_exists(r) OR r < :r"
        return sum(self._table.write(_item(key, row), newer, {":r": {"S": _rank(row)}}) for row in rows)

    def _write_value(self, key: bytes, old: bytes | None, new: bytes) -> bool:
        """Replace a value that has not changed, or delete it if the new one is empty; return whether it was done."""
        if not old:
            return not new or self._table.write(_item(key, new), NO_ITEM)
        if new:
            return self._table.write(_item(key, new), "v = :v", {":v": {"B": old}})
        return self._table.remove(value_key(key), "v = :v", {":v": {"B": old}})

    def _read_marks(self, names: Sequence[str]) -> dict[str, Marker | None]:
        items = self._table.items([marker_key(name) for name in names])
        return {name: marker_of(items.get(marker_key(name))) for name in names}

    def _change_marks(self, marks: Mapping[str, Marker], expected: Mapping[str, int | None], lives: set[bytes]) -> None:
        """Change markers that reach their minimum, together; read them again if another process changed one."""
        if len(lives) > 1:
            raise self._lost_error()
        checks = [_check(_LIFE, "v = :v", {":v": {"B": life}}) for life in lives]
        names = list(marks)
        for start in range(0, len(names), ITEMS_PER_CALL - 1):
            some = names[start : start + ITEMS_PER_CALL - 1]
            for _ in self._table.attempts():
                old = self._read_marks(list({*some, *expected}))
                self._check_minimum(old, expected)
                puts = [_marker_put(name, old[name], _advanced(old[name], marks[name])) for name in some]
                causes = self._table.transact([*checks, *puts])
                if not causes:
                    break
                if checks and causes[0] == _CHANGED:
                    raise self._lost_error()

    def _check_minimum(self, marks: Mapping[str, Marker | None], expected: Mapping[str, int | None]) -> None:
        for name, minimum in expected.items():
            mark = marks[name]
            if minimum is not None and (mark is None or mark.position < minimum):
                raise self._lost_error()

    def _scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        return ([key for key in page if key.startswith(prefix)] for page in self._table.scan())

    def _delete_unless(self, mark: bytes, keys: Sequence[bytes]) -> int:
        """Delete items unless their marker exists: a run writes them again, and its rows stay (SEMANTICS 4.5)."""
        actions = [_check(mark, NO_ITEM), *(("Delete", {"Key": {"k": {"B": key}}}) for key in keys)]
        for _ in self._table.attempts():
            causes = self._table.transact(actions)
            if not causes or causes[0] == _CHANGED:
                return 0 if causes else len(keys)
        raise AssertionError  # attempts end with an error

    def _lost_error(self) -> StoreError:
        return self._table.failure(
            "was emptied or replaced while rows were written and may have lost rows",
            "run again: they are written again",
        )


def _item(key: bytes, value: bytes) -> Item:
    """Return the item of a value; its rank is hexadecimal text, which DynamoDB compares as the bytes."""
    rank = {"r": {"S": _rank(value)}} if len(value) >= RANK_BYTES else {}
    return {"k": {"B": value_key(key)}, "v": {"B": value}, **rank}


def _rank(row: bytes) -> str:
    return row[:RANK_BYTES].hex()


def _check(key: bytes, condition: str, values: Item | None = None) -> Action:
    """Return the part of a transaction that changes nothing, and prevents it unless a condition holds."""
    values_of = {_VALUES: values} if values else {}
    return "ConditionCheck", {"Key": {"k": {"B": key}}, _CONDITION: condition, **values_of}


def _marker_put(name: str, old: Marker | None, new: Marker) -> Action:
    """Return the write of a marker that nobody has changed since it was read."""
    body: dict[str, Any] = {"Item": {"k": {"B": marker_key(name)}, **_numbers("p", "w", new)}}
    if old is None:
        return "Put", body | {_CONDITION: NO_ITEM}
    return "Put", body | {_CONDITION: "p = :p AND w = :w", _VALUES: _numbers(":p", ":w", old)}


def _advanced(old: Marker | None, mark: Marker) -> Marker:
    """Return a marker after a change: positions never go back, and watermark 0 keeps the old one."""
    position = mark.position if old is None else max(old.position, mark.position)
    kept = 0 if old is None or position <= LOST else old.watermark_us
    return Marker(position, mark.watermark_us or kept)


def _numbers(position: str, watermark: str, mark: Marker) -> Item:
    return {position: {"N": str(mark.position)}, watermark: {"N": str(mark.watermark_us)}}


def _each(values: Binaries) -> Sequence[bytes]:
    return cast("Sequence[bytes]", values.to_pylist()) if isinstance(values, pa.Array) else values
