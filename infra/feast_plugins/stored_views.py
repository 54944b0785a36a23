"""The stored form of a Feast view in the online store: as in our plan if the view compiles, else a lenient form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

from feast import Entity, FeatureView, Field, StreamFeatureView
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.repo_config import RepoConfig
from feast.value_type import ValueType

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.keys import KEY_DTYPES, KeyCodec
from skewless.contract.plan import Source, View
from skewless.contract.rows import RowCodec
from skewless.infra.compiler.views import DUMMY_ENTITY, compile_view, to_dtype
from skewless.infra.offline.source_columns import NO_ENTITY

OPAQUE = "opaque"
DUMMY_KEY = NO_ENTITY

Table = Any  # FeatureView, StreamFeatureView, OnDemandFeatureView or LabelView: they have no common type in Feast
JoinKeys = Callable[[], Mapping[str, str]]

_KINDS = {
    DType.INT32: "int32_val",
    DType.INT64: "int64_val",
    DType.FLOAT32: "float_val",
    DType.FLOAT64: "double_val",
    DType.BOOL: "bool_val",
    DType.STRING: "string_val",
    DType.BYTES: "bytes_val",
    DType.TIMESTAMP: "unix_timestamp_val",
}


@dataclass(frozen=True, kw_only=True)
class StoredView:
    """The stored form of one Feast view.

    Args:
        view: names and types of the packed rows, and their hash.
        kinds: per feature, its field of Feast's ``Value``; ``OPAQUE``: the row stores the serialized message.
        types: per feature, Feast's type, for responses.
        exact: whether ``view`` equals the view of `skewless apply`, so that our materialization can write it.
    """

    view: View
    kinds: Mapping[str, str]
    types: Mapping[str, ValueType]
    exact: bool

    @cached_property
    def codec(self) -> RowCodec:
        """Return the codec of rows that were not written through the accepted log."""
        return RowCodec(self.view, f"feast/{self.view.name}-{self.view.hash}")

    @cached_property
    def memory(self) -> dict[object, object]:
        """Return a cache for readers, valid as long as the form."""
        return {}

    @cached_property
    def _key_codecs(self) -> dict[str, KeyCodec]:
        return {}

    def key_codec(self, project: str) -> KeyCodec:
        """Return the key codec of a project."""
        if project not in self._key_codecs:
            self._key_codecs[project] = KeyCodec(project, self.view)
        return self._key_codecs[project]


def build_stored_view(table: Table, config: RepoConfig, join_keys: JoinKeys) -> StoredView:
    """Return the stored form of a view, equal for all writers and readers.

    Args:
        join_keys: returns entity name -> join key of the whole project; called only if the view does not determine it.
    """
    fields = _features(table)
    view = _compile_exact(table, join_keys)
    # Rows of an exact view are those of `skewless materialize`, so both can write and read them.
    exact = view is not None
    if view is None:
        view = _build_lenient(table, fields)
    name = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
    opaque = {field.name for field in fields if to_dtype(field.dtype) is None}
    return StoredView(
        view=replace(view, name=name) if name != view.name else view,
        kinds={column.name: OPAQUE if column.name in opaque else _KINDS[column.dtype] for column in view.features},
        types={field.name: field.dtype.to_value_type() for field in fields},
        exact=exact,
    )


def with_row_keys(stored: StoredView, keys: Mapping[str, str | None]) -> StoredView:
    """Return the form of a view without declared keys, with the keys of a row.

    Args:
        keys: join key -> field of its ``Value``.
    """
    kinds = {"int32_val": DType.INT32, "int64_val": DType.INT64, "string_val": DType.STRING}
    columns = tuple(Column(name=name, dtype=kinds.get(keys[name] or "", DType.BYTES)) for name in sorted(keys))
    return replace(stored, view=replace(stored.view, keys=columns))


def is_plain(table: Table) -> bool:
    """Say whether a view's rows are the rows of its source, without any computation."""
    computed = ("feature_transformation", "aggregations", "source_views")
    kind = isinstance(table, FeatureView) and not isinstance(table, StreamFeatureView)
    return kind and not any(getattr(table, name, None) for name in computed)


def _compile_exact(table: Table, join_keys: JoinKeys) -> View | None:
    if not is_plain(table):
        return None
    try:
        return compile_view(table, _entities(table, join_keys))
    except DefinitionError:
        return None


def _entities(table: Table, join_keys: JoinKeys) -> dict[str, Entity]:
    # Feast passes the entity of a view without entities only in some calls.
    if table.entities in ([], [DUMMY_ENTITY]):
        return {DUMMY_ENTITY: Entity(name=DUMMY_ENTITY, join_keys=[DUMMY_KEY], value_type=ValueType.STRING)}
    columns = {column.name: column.dtype.to_value_type() for column in table.entity_columns}
    if len(table.entities) == len(columns) == 1:
        named: Mapping[str, str] = {table.entities[0]: next(iter(columns))}
    elif set(table.entities) == set(columns):
        named = {name: name for name in columns}
    else:
        named = join_keys()
    return {
        name: Entity(name=name, join_keys=[named[name]], value_type=columns[named[name]])
        for name in table.entities
        if named.get(name) in columns
    }


def _build_lenient(table: Table, fields: Sequence[Field]) -> View:
    columns = sorted(table.entity_columns, key=lambda field: str(field.name))
    keys = tuple(Column(name=field.name, dtype=_key_dtype(field)) for field in columns)
    source = getattr(table, "batch_source", None)
    types = {field.name: str(field.dtype) for field in fields}
    return View(
        name=table.name,
        keys=keys or (Column(name=DUMMY_KEY, dtype=DType.STRING),),
        features=tuple(Column(name=field.name, dtype=to_dtype(field.dtype) or DType.BYTES) for field in fields),
        # Never read; it is part of the hash, so that other types or sources make another view, as in the plan.
        source=Source(
            path=f"feast:{type(source).__name__}:{getattr(source, 'name', '')}",
            event_column=getattr(source, "timestamp_field", None) or "",
            columns=types,
        ),
        ttl_us=(getattr(table, "ttl", None) or timedelta(0)) // timedelta(microseconds=1),
        delay_us=0,
        freshness_us=0,
    )


def _features(table: Table) -> list[Field]:
    # An on-demand view that is written to the store also stores its inputs, which only its schema lists, unordered.
    extra = sorted(getattr(table, "schema", None) or (), key=lambda field: str(field.name))
    keys = {column.name for column in table.entity_columns}
    fields = {field.name: field for field in (*extra, *table.features) if field.name not in keys}
    first = list(dict.fromkeys(field.name for field in table.features if field.name not in keys))
    return [fields.pop(name) for name in first] + list(fields.values())


def _key_dtype(field: Field) -> DType:
    dtype = to_dtype(field.dtype)
    return dtype if dtype in KEY_DTYPES else DType.BYTES
