"""The form of a Feast view: its rows in the online store, or its definition in the applied plan if it is windowed.

Rows are stored as in our plan if the view compiles, else in a lenient form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

from feast import Entity, FeatureView, Field, StreamFeatureView
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.repo_config import RepoConfig
from feast.types import PrimitiveFeastType
from feast.value_type import ValueType

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError, RequestError, StalePlanError
from skewless.contract.keys import KEY_DTYPES, KeyCodec
from skewless.contract.plan import FeaturePlan, Source, View
from skewless.contract.rows import RowCodec
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.definitions.compiler.views import DUMMY_ENTITY, compile_view, to_dtype
from skewless.infra.definitions.plans.applied_plan import AppliedPlanReader
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.source_columns import NO_ENTITY

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
_MAX_CACHED = 1_000
_Version = tuple[object, ...]


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
    view = None
    if is_plain(table):
        with suppress(DefinitionError):
            view = compile_view(table, _entities(table, join_keys))
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


def is_plain(table: Table) -> bool:
    """Say whether a view's rows are the rows of its source, without any computation."""
    computed = ("feature_transformation", "aggregations", "source_views")
    kind = isinstance(table, FeatureView) and not isinstance(table, StreamFeatureView)
    return kind and not any(getattr(table, name, None) for name in computed)


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
    dtypes = {field.name: to_dtype(field.dtype) for field in columns}
    keys = tuple(
        Column(name=name, dtype=dtype if dtype in KEY_DTYPES else DType.BYTES) for name, dtype in dtypes.items()
    )
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


def read_cache(cache: dict[object, StoredView], table: Table, config: RepoConfig) -> StoredView:
    """Return the stored form of a view from a cache, which threads may share.

    Feast passes the same views again and again, often as new objects.
    """
    version = _version(table)
    stored = cache.get(version)
    if stored is None:
        stored = build_stored_view(table, config, lambda: _join_keys(config))
        if len(cache) >= _MAX_CACHED:
            cache.clear()
        cache[version] = stored
    return stored


def _version(table: Table) -> _Version:
    """Return all parts of a view that determine its form; views have no reliable time of change."""
    source = getattr(table, "batch_source", None)
    return (
        type(table),
        is_plain(table),
        table.name,
        table.projection.version_tag,
        getattr(table, "current_version_number", None),
        getattr(table, "ttl", None),
        tuple(table.entities),
        tuple(table.tags.items()),
        _fields(table.entity_columns),
        _fields(table.features),
        # The schema of a FeatureView has nothing but these two.
        () if isinstance(table, FeatureView) else _fields(getattr(table, "schema", None) or ()),
        type(source),
        *(getattr(source, name, None) for name in ("name", "path", "timestamp_field", "created_timestamp_column")),
        tuple(getattr(source, "field_mapping", {}).items()),
    )


def _fields(fields: Iterable[Any]) -> _Version:
    return tuple([item for field in fields for item in (field.name, _type(field.dtype))])


def _type(dtype: object) -> object:
    """Return a key of a type; simple types are singletons, whose ``id`` is faster than their hash."""
    return id(dtype) if type(dtype) is PrimitiveFeastType else str(dtype)


def _join_keys(config: RepoConfig) -> Mapping[str, str]:
    from feast import FeatureStore  # noqa: PLC0415 - Feast imports its stores: circular at module level

    # A relative registry path is relative to the repo, not to the working folder of the process.
    repo = None if config.repo_path is None else str(config.repo_path)
    return {entity.name: entity.join_key for entity in FeatureStore(repo, config).list_entities()}


def is_windowed(table: Table) -> bool:
    """Say whether a view's features are computed from the events of a stream, not read from a table."""
    return isinstance(table, StreamFeatureView) and bool(table.aggregations)


def check_writable(table: Table) -> None:
    """Check that features of a view can be written directly.

    Raises:
        RequestError: the view is windowed.
    """
    if is_windowed(table):
        raise RequestError(
            f"windowed view {table.name!r}",
            "has no rows to write: its features are computed from events",
            fix=f"push events to its source: store.push({table.stream_source.name!r}, frame)",
        )


class WindowPlans:
    """The windowed views and event sources of the applied plan; threads may share it.

    The definition of a windowed view comes from the plan, not from Feast's registry: workers build the plan's states.
    An apply is noticed within a second, and at once by a read of a view, feature or source that the plan lacks.
    """

    def __init__(self, state: ProjectState) -> None:
        self._reader = AppliedPlanReader(state, interval_s=1.0)

    @property
    def plan(self) -> FeaturePlan:
        """The applied plan.

        Raises:
            StalePlanError: no plan was applied yet, or it is corrupt.
        """
        return self._reader.read()

    def view(self, table: Table, names: Iterable[str] = ()) -> WindowView:
        """Return the windowed view of the plan with the name of a Feast view.

        Args:
            names: required features.

        Raises:
            StalePlanError: the plan has no such view, or the view has no such registered feature.
            RequestError: a required feature is unknown.
        """
        view, missing = _compare(self.plan, table)
        if view is None or missing:
            view, missing = _compare(self._reader.read(now=True), table)
        if view is None or missing:
            raise StalePlanError(
                f"windowed view {table.name!r}",
                "differs between the applied plan and Feast's registry",
                value=missing[0] if view else None,
                fix="run `skewless apply`, which updates both",
            )
        for name in names:
            if name not in {column.name for column in view.features}:
                raise RequestError(
                    f"windowed view {table.name!r}",
                    "has no such feature",
                    value=name,
                    fix=f"use one of {', '.join(column.name for column in view.features)}",
                )
        return view

    def source(self, name: str) -> EventSource | None:
        """Return the plan's event source with a name, or None."""
        for now in (False, True):
            for source in self._reader.read(now=now).sources:
                if source.name == name:
                    return source
        return None


def _compare(plan: FeaturePlan, table: Table) -> tuple[WindowView | None, list[str]]:
    """Return the plan's view with the name of a Feast view, and the Feast view's features that it does not have."""
    view = next((item for item in plan.windows if item.name == table.name), None)
    own = {column.name for column in view.features} if view else set()
    # For a view without a declared schema, Feast includes the keys in its features.
    keys = {column.name for column in table.entity_columns}
    return view, sorted({field.name for field in table.features} - keys - own)
