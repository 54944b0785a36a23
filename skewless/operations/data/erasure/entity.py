"""The keys of an entity that is erased, and its rows in the logs; those of views and events keep their place.

SEMANTICS 1.4 has the reason.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.contract.arrow_types import arrow_type
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import PackageError, RequestError
from skewless.contract.keys import KeyValue, parse_key
from skewless.contract.names import check_known
from skewless.infra.definitions.plans.applied_plan import read_valid
from skewless.infra.log.compaction import Change, Options, rewrite_segments, visit_segments
from skewless.infra.log.log_columns import (
    DECLARED,
    ERASED,
    EVENT,
    INGEST,
    KNOWN_AT,
    RAW,
    REJECT,
    RUN,
    SEQ,
    SOURCE_POS,
    TOMBSTONE,
    merged_options,
)
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.models.packages.package import read_spec
from skewless.infra.models.rollout.entity_lists import EntityLists
from skewless.infra.platform.storage.objects import StoredObject
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.outcomes.log import open_outcome_log
from skewless.infra.records.predictions.segments import WRITE_OPTIONS, open_prediction_log
from skewless.workspace import Workspace

_DIGITS = re.compile(r"-?[0-9]{1,19}\Z", re.ASCII)
# Positions, times and runs, which the proof of other entities' values needs.
_KEPT = frozenset({SEQ, EVENT, INGEST, RUN, KNOWN_AT, SOURCE_POS, DECLARED, TOMBSTONE})
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

    def owns_value(self, text: str) -> bool:
        """Return whether a value of a list of keys is the entity; several keys are not a single value."""
        return len(self.keys) == 1 and all(self._is_value(name, text) for name in self.keys)

    def owns_keys(self, keys: Iterable[Column]) -> bool:
        """Return whether all rows of a key of these columns belong to one entity such as this."""
        return self.keys.keys() <= {key.name for key in keys}

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
    import pyarrow.dataset as ds  # imports pandas, which the control room does without

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
    for item in rows.schema:
        value = pa.scalar(ERASED if item.name == REJECT else None, item.type)
        columns.append(rows[item.name] if item.name in kept else pc.if_else(mask, value, rows[item.name]))
    return pa.table(columns, schema=rows.schema)


def _decode(message: bytes | str) -> str:
    return message if isinstance(message, str) else message.decode(errors="replace")


@dataclass(kw_only=True)
class LoggedEntity:
    """The rows of an entity in one log, as it is now.

    Args:
        log: the log.
        read: returns the entity's rows in a file.
        change: returns the rows of a row group after the erasure.
        options: of the Parquet writer.

    Attributes:
        rows: number of rows.

    Raises:
        StoreError: a segment is missing or altered, or the storage failed.
    """

    log: PartitionLog
    read: Callable[[Path], pa.Table]
    change: Change
    options: Options = merged_options
    rows: int = field(default=0, init=False)
    _distinct: list[pa.Table] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        visit_segments(self.log, lambda _, path: self._add(self.read(path)))

    def keys(self, columns: Sequence[Column]) -> pa.Table:
        """Return the distinct values of key columns of integers or texts, in their types, without nulls."""
        schema = pa.schema([(column.name, arrow_type(column.dtype)) for column in columns])
        tables = [table for table in self._distinct if set(schema.names) <= set(table.column_names)]
        rows = pa.concat_tables([schema.empty_table(), *(each.select(schema.names).cast(schema) for each in tables)])
        return rows.drop_null().group_by(schema.names).aggregate([])

    def erase(self) -> list[StoredObject]:
        """Erase the rows; return the objects that had them.

        Raises:
            StoreError: the storage failed, or a segment is missing or altered; a repeated call continues.
        """
        return rewrite_segments(self.log, lambda path: self.read(path).num_rows > 0, self.change, self.options)

    def _add(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        names = [column.name for column in rows.schema if _may_be_key(column)]
        if rows.num_rows:
            self._distinct.append(rows.select(names).group_by(names).aggregate([]))


def find_accepted_rows(log: PartitionLog, entity: Entity) -> LoggedEntity:
    """Return the rows of an entity in a log of a view or of events, whose values are erased."""
    return LoggedEntity(log=log, read=partial(read_rows, entity), change=partial(erase_values, entity, kept=_KEPT))


def find_predictions(state: ProjectState, entity: Entity) -> LoggedEntity:
    """Return the predictions of an entity, which are removed; what this machine has not shipped is shipped first."""
    log = open_prediction_log(state)
    return _find_logged(
        log, ["id", "inputs", "file", "row"], lambda row: entity.owns(row["inputs"]), lambda _: WRITE_OPTIONS
    )


def find_outcomes(state: ProjectState, entity: Entity, predictions: LoggedEntity) -> LoggedEntity:
    """Return the outcomes of an entity or of its predictions, which are removed."""
    ids = set(predictions.keys([Column(name="id", dtype=DType.STRING)])["id"].to_pylist())

    def owns(row: Mapping[str, Any]) -> bool:
        return row["prediction_id"] in ids or entity.owns(row["keys"])

    return _find_logged(open_outcome_log(state), ["keys", "prediction_id"], owns, merged_options)


def _find_logged(
    log: PartitionLog, columns: list[str], owns: Callable[[Mapping[str, Any]], bool], options: Options
) -> LoggedEntity:
    def mask(rows: pa.Table) -> pa.Array:
        return pa.array([owns(row) for row in rows.select(columns).to_pylist()], pa.bool_())

    def read(path: Path) -> pa.Table:
        rows = pq.read_table(path, columns=columns)
        return rows.filter(mask(rows))

    return LoggedEntity(log=log, read=read, change=lambda rows: rows.filter(pc.invert(mask(rows))), options=options)


def _may_be_key(column: pa.Field) -> bool:
    return not column.name.startswith("__") and (pa.types.is_integer(column.type) or pa.types.is_string(column.type))


def find_lists(project: Workspace, entity: Entity) -> list[str]:
    """Return the lists in which policies look up the key of an entity, and lists that no policy reads.

    A policy may also look up another column in a list: then an equal value there is of something else.
    """
    applied = read_valid(project.state)
    specs = [*(applied.models if applied else ())]
    for model in project.packages.list_models():
        for version in project.packages.list_versions(model):
            with suppress(PackageError):  # it cannot be loaded either
                specs.append(read_spec(project.store, model, version))
    columns: dict[str, set[str]] = {}
    for spec in specs:
        for name, column in (spec.policy.lists if spec.policy else {}).items():
            columns.setdefault(name, set()).add(column)
    names = EntityLists(project.state.database).names()
    return [name for name in names if not columns.get(name) or columns[name] & entity.keys.keys()]
