"""The stored forms of views, remembered: Feast hands over the same views again and again, often as new objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from feast import FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.repo_config import RepoConfig
from feast.types import PrimitiveFeastType

from skewless.infra.feast_plugins.stored_views import DUMMY_KEY, StoredView, Table, is_plain, keyed_by, stored_form
from skewless.infra.feast_plugins.values import kind_of

_MOST = 1_000
_Version = tuple[object, ...]


class StoredViewCache:
    """Stored forms by version of their views; threads may share it."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._known: dict[_Version, StoredView] = {}

    def of(self, table: Table, config: RepoConfig) -> StoredView:
        """Return the form of a view of a project."""
        version = _version(table)
        known = self._known.get(version)
        if known is not None:
            return known
        stored = stored_form(table, config, lambda: _join_keys(config))
        if len(self._known) >= _MOST:
            self.forget()
        self._known[version] = stored
        return stored

    def keyed(self, stored: StoredView, key: EntityKey) -> StoredView:
        """Return the form for rows keyed as one of them is: Feast stores precomputed vectors in a view without keys."""
        if [column.name for column in stored.view.keys] != [DUMMY_KEY] or list(key.join_keys) in ([], [DUMMY_KEY]):
            return stored
        named = zip(key.join_keys, key.entity_values, strict=True)
        return keyed_by(stored, {name: kind_of(value) for name, value in named})

    def forget(self) -> None:
        """Look at every view anew."""
        self._known = {}


def _version(table: Table) -> _Version:
    """Return everything that the form is made of: copies of a view carry no time of change, nor do new ones."""
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
        # What a plain view has besides is in the two before.
        () if isinstance(table, FeatureView) else _fields(getattr(table, "schema", None) or ()),
        type(source),
        *(getattr(source, name, None) for name in ("name", "path", "timestamp_field", "created_timestamp_column")),
        tuple(getattr(source, "field_mapping", {}).items()),
    )


def _fields(fields: Iterable[Any]) -> _Version:
    return tuple([item for field in fields for item in (field.name, _type(field.dtype))])


def _type(dtype: object) -> object:
    """Return what tells types apart; there is one object of each simple one, whose own hash takes longer."""
    return id(dtype) if type(dtype) is PrimitiveFeastType else str(dtype)


def _join_keys(config: RepoConfig) -> Mapping[str, str]:
    from feast import FeatureStore  # noqa: PLC0415 - it imports its stores, so it cannot stand above

    # A relative registry lies in the repository, not in the folder that the process happens to work in.
    repo = None if config.repo_path is None else str(config.repo_path)
    return {entity.name: entity.join_key for entity in FeatureStore(repo, config).list_entities()}
