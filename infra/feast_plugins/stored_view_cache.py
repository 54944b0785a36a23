"""Cache the stored forms of views: Feast passes the same views again and again, often as new objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from feast import FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.repo_config import RepoConfig
from feast.types import PrimitiveFeastType

from skewless.infra.feast_plugins.stored_views import (
    DUMMY_KEY,
    StoredView,
    Table,
    build_stored_view,
    is_plain,
    with_row_keys,
)
from skewless.infra.feast_plugins.values import value_field

_MAX_CACHED = 1_000
_Version = tuple[object, ...]


class StoredViewCache:
    """Stored forms by the definitions of their views; threads may share it."""

    def __init__(self) -> None:
        """Create an empty cache."""
        self._cached: dict[_Version, StoredView] = {}

    def get(self, table: Table, config: RepoConfig) -> StoredView:
        """Return the stored form of a view."""
        version = _version(table)
        cached = self._cached.get(version)
        if cached is not None:
            return cached
        stored = build_stored_view(table, config, lambda: _join_keys(config))
        if len(self._cached) >= _MAX_CACHED:
            self.clear()
        self._cached[version] = stored
        return stored

    def with_keys(self, stored: StoredView, key: EntityKey) -> StoredView:
        """Return the form for rows with a key's columns: Feast stores precomputed vectors in a view without keys."""
        if [column.name for column in stored.view.keys] != [DUMMY_KEY] or list(key.join_keys) in ([], [DUMMY_KEY]):
            return stored
        named = zip(key.join_keys, key.entity_values, strict=True)
        return with_row_keys(stored, {name: value_field(value) for name, value in named})

    def clear(self) -> None:
        """Empty the cache."""
        # A new dict: another thread may be reading the old one.
        self._cached = {}


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
