"""The keys of an entity that is erased, and the rows and JSON objects that belong to it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.contract.keys import KeyValue, parse_key
from skewless.contract.names import check_known
from skewless.infra.log.log_columns import ERASED, RAW, REJECT

_DIGITS = re.compile(r"-?[0-9]{1,19}\Z", re.ASCII)
_DTYPES = {
    pa.int32(): DType.INT32,
    pa.int64(): DType.INT64,
    pa.string(): DType.STRING,
    pa.large_string(): DType.STRING,
}


@dataclass(frozen=True, kw_only=True)
class Entity:
    """Some join keys and their values; rows with more keys belong to it, too.

    Args:
        keys: values as text, those of integers without leading zeros.
        integers: keys that are integers.
    """

    keys: Mapping[str, str]
    integers: frozenset[str]

    @classmethod
    def parse(cls, texts: Mapping[str, str], columns: Iterable[Column], logged: Iterable[pa.Schema]) -> Entity:
        """Return an entity from texts.

        Args:
            texts: join key -> value.
            columns: the join keys of the plan, which determine the types of the values.
            logged: the columns of all logs: keys of former plans may be erased, too.

        Raises:
            RequestError: a key is unknown, or its value is not of its type.
        """
        if not texts:
            raise RequestError("entity", "has no key", fix="give --entity KEY=VALUE")
        declared = {column.name: column for column in columns}
        former = {
            name: Column(name=name, dtype=_DTYPES[schema.field(name).type])
            for schema in logged
            for name in schema.names
            if not name.startswith("__") and schema.field(name).type in _DTYPES
        }
        values = {}
        for name, text in texts.items():
            if name not in declared and name not in former:
                check_known("entity key", name, declared)
            values[name] = parse_key(declared.get(name) or former[name], text)
            if values[name] is None:
                raise RequestError(f"entity key {name!r}", "is null", fix="give its value")
        integers = frozenset(name for name, value in values.items() if isinstance(value, int))
        return cls(keys={name: str(value) for name, value in values.items()}, integers=integers)

    def digest(self, salt: str) -> str:
        """Return a digest of the keys: without the salt, it does not tell whether they are the keys of an entity."""
        text = json.dumps([salt, sorted(self.keys.items())])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def values(self, schema: pa.Schema) -> dict[str, KeyValue] | None:
        """Return the values in the types of a log's columns; None: the log can have no row of the entity."""
        values: dict[str, KeyValue] = {}
        for name, text in self.keys.items():
            dtype = _DTYPES.get(schema.field(name).type) if name in schema.names else None
            try:
                value = None if dtype is None else parse_key(Column(name=name, dtype=dtype), text)
            except RequestError:
                return None
            if value is None:
                return None
            values[name] = value
        return values

    def owns(self, text: str | None) -> bool:
        """Return whether a JSON object has the keys with these values.

        >>> entity = Entity(keys={"card": "7"}, integers=frozenset(["card"]))
        >>> [entity.owns(text) for text in ('{"card": 7, "x": 1}', '{"card": "07"}', '{"card": 8}', "[7]", None)]
        [True, True, False, False, False]
        """
        try:
            value = json.loads(text or "")
        except ValueError:
            return False
        return isinstance(value, dict) and all(self._is_value(name, value.get(name)) for name in self.keys)

    def owns_message(self, text: str) -> bool:
        """Return whether a rejected message may be of the entity: if it is not JSON, whether it has all values."""
        try:
            json.loads(text)
        except ValueError:
            return all(re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) for value in self.keys.values())
        return self.owns(text)

    def _is_value(self, name: str, value: object) -> bool:
        if name in self.integers:
            text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
            return _DIGITS.match(text) is not None and str(int(text)) == self.keys[name]
        return value == self.keys[name]


def find_rows(entity: Entity, rows: pa.Table) -> pa.Array:
    """Return which rows of a log belong to an entity, boolean; rows that were erased before do not."""
    found = np.zeros(rows.num_rows, dtype=np.bool_)
    if (values := entity.values(rows.schema)) is not None:
        found[:] = True
        for name, value in values.items():
            equal = pc.equal(rows[name], pa.scalar(value, rows.schema.field(name).type))
            found &= equal.fill_null(False).to_numpy()  # noqa: FBT003
    messages = pc.and_(rows[RAW].is_valid(), rows[REJECT].is_valid())
    # The columns of a rejected row may lack values that its message has.
    for i in np.flatnonzero(~found & messages.to_numpy()).tolist():
        found[i] = entity.owns_message(_decode(rows[RAW][i].as_py()))
    return pa.array(found)


def read_rows(entity: Entity, path: Path) -> pa.Table:
    """Return the rows of a log file that belong to an entity; reads only row groups that may have some."""
    file = ds.dataset(path, format="parquet")
    condition = ds.field(RAW).is_valid() & ds.field(REJECT).is_valid()
    if (values := entity.values(file.schema)) is not None:
        equal = ds.scalar(True)  # noqa: FBT003
        for name, value in values.items():
            equal &= ds.field(name) == pa.scalar(value, file.schema.field(name).type)
        condition |= equal
    rows = file.to_table(filter=condition)
    return rows.filter(find_rows(entity, rows)) if rows.num_rows else rows


def erase_values(entity: Entity, rows: pa.Table, kept: frozenset[str]) -> pa.Table:
    """Return rows in which the entity's rows have only some columns, and the reason ``erased``."""
    mask = find_rows(entity, rows)
    columns: list[Any] = []
    for field in rows.schema:
        value = pa.scalar(ERASED if field.name == REJECT else None, field.type)
        columns.append(rows[field.name] if field.name in kept else pc.if_else(mask, value, rows[field.name]))
    return pa.table(columns, schema=rows.schema)


def _decode(message: bytes | str) -> str:
    return message if isinstance(message, str) else message.decode(errors="replace")
