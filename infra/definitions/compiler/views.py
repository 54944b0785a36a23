"""Compile Feast feature views to the plan's latest-value views; helpers for all definitions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from feast import Entity, FeatureView, Field, FileSource
from feast.feature_view import DUMMY_ENTITY_NAME
from feast.types import PrimitiveFeastType
from feast.value_type import ValueType

from skewless.contract.columns import PREDICTION, REQUEST, Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.keys import KEY_DTYPES
from skewless.contract.plan import Source, View
from skewless.infra.definitions.sources.duckdb_source import DuckDBSource
from skewless.infra.definitions.sources.source_schema import EXPORT_LAKE, NO_LAKES, is_lake
from skewless.infra.reads.offline.sources import NO_STORES, USE_FILES, is_remote

TAG_DELAY = "skewless.delay"
TAG_FRESHNESS = "skewless.freshness"
TAG_MAX_AGE = "skewless.max_age"
TAG_TOMBSTONE = "skewless.tombstone"
_TAGS = frozenset({TAG_DELAY, TAG_FRESHNESS, TAG_MAX_AGE, TAG_TOMBSTONE})

_DTYPES = {
    PrimitiveFeastType.INT32: DType.INT32,
    PrimitiveFeastType.INT64: DType.INT64,
    PrimitiveFeastType.FLOAT32: DType.FLOAT32,
    PrimitiveFeastType.FLOAT64: DType.FLOAT64,
    PrimitiveFeastType.BOOL: DType.BOOL,
    PrimitiveFeastType.STRING: DType.STRING,
    PrimitiveFeastType.BYTES: DType.BYTES,
    PrimitiveFeastType.UNIX_TIMESTAMP: DType.TIMESTAMP,
}
_KEY_TYPES = {ValueType.INT32: DType.INT32, ValueType.INT64: DType.INT64, ValueType.STRING: DType.STRING}
DUMMY_ENTITY = DUMMY_ENTITY_NAME  # name of Feast's entity for views without entities
_LENGTH = re.compile(r"(\d+)(us|ms|s|m|h|d)")
_UNITS = {"us": 1, "ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}


def compile_view(feast_view: FeatureView, entities: Mapping[str, Entity]) -> View:
    """Return the latest-value view of a Feast feature view.

    Raises:
        DefinitionError: the view cannot be served.
    """
    name = feast_view.name
    owner = f"feature view {name!r}"
    check_reserved(owner, name)
    keys = tuple(compile_key(feast_view, entities, entity) for entity in feast_view.entities or [DUMMY_ENTITY])
    tags = check_tags(owner, feast_view.tags, _TAGS)
    return View(
        name=name,
        keys=keys,
        features=_features(feast_view, {key.name for key in keys}),
        source=_source(feast_view, tags.get(TAG_TOMBSTONE)),
        ttl_us=(feast_view.ttl or timedelta(0)) // timedelta(microseconds=1),
        delay_us=parse_duration_us(owner, TAG_DELAY, tags),
        freshness_us=parse_duration_us(owner, TAG_FRESHNESS, tags),
        max_age_us=parse_duration_us(owner, TAG_MAX_AGE, tags),
    )


def check_reserved(owner: str, name: str) -> None:
    """Check that a view does not have a reserved name, which would make references ambiguous.

    Raises:
        DefinitionError: the name is reserved.
    """
    if name in {REQUEST, PREDICTION}:
        raise DefinitionError(owner, "has a reserved name", fix="rename the view")


def compile_field(owner: str, field: Field) -> Column:
    """Return a typed column for a Feast field.

    Raises:
        DefinitionError: the type is not supported, or the name is reserved.
    """
    dtype = to_dtype(field.dtype)
    if dtype is None:
        raise DefinitionError(
            f"{owner} feature {field.name!r}",
            "has a type that cannot be served",
            value=str(field.dtype),
            fix=f"use one of {', '.join(sorted(item.name.title() for item in _DTYPES))}",
        )
    if field.name.startswith("__"):
        raise DefinitionError(
            f"{owner} feature", "has a reserved name", value=field.name, fix="do not begin names with two underscores"
        )
    return Column(name=field.name, dtype=dtype)


def to_dtype(dtype: object) -> DType | None:
    """Return the plan's type for a Feast type, or None."""
    return _DTYPES.get(dtype) if isinstance(dtype, PrimitiveFeastType) else None


def compile_key(feast_view: FeatureView, entities: Mapping[str, Entity], entity_name: str) -> Column:
    """Return the typed join key of one of a view's entities.

    Raises:
        DefinitionError: the entity is unknown, or its type cannot be a key.
    """
    entity = entities.get(entity_name)
    if entity is None and entity_name == DUMMY_ENTITY:
        raise DefinitionError(
            f"feature view {feast_view.name!r}",
            "has no entity, which `skewless` needs to serve it",
            fix="add an entity; Feast's own commands materialize and serve a view without entities",
        )
    if entity is None:
        raise DefinitionError(
            f"feature view {feast_view.name!r}",
            "names an entity that is not in definitions.py",
            value=entity_name,
            fix="define the Entity at the top level of definitions.py",
        )
    declared = [field.dtype for field in feast_view.entity_columns if field.name == entity.join_key]
    dtype = to_dtype(declared[0]) if declared else _KEY_TYPES.get(entity.value_type)
    if dtype not in KEY_DTYPES:
        raise DefinitionError(
            f"entity {entity_name!r}",
            "has a key that is not a string, int32 or int64",
            value=str(declared[0] if declared else entity.value_type),
            fix="set value_type=ValueType.STRING or ValueType.INT64 on the Entity",
        )
    return Column(name=entity.join_key, dtype=DType(dtype))


def _features(feast_view: FeatureView, keys: set[str]) -> tuple[Column, ...]:
    owner = f"feature view {feast_view.name!r}"
    columns = [compile_field(owner, field) for field in feast_view.features if field.name not in keys]
    names = [column.name for column in columns]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(
                owner, "has two features with one name", value=name, fix="rename or remove one of them"
            )
    check_case(owner, [*keys, *names])
    if not columns:
        raise DefinitionError(owner, "has no feature", fix="add at least one feature")
    return tuple(columns)


def check_case(owner: str, names: Sequence[str]) -> None:
    """Check that no two names differ only in case.

    Raises:
        DefinitionError: two names do.
    """
    first: dict[str, str] = {}
    for name in names:
        if first.setdefault(name.lower(), name) != name:
            raise DefinitionError(
                owner,
                "has names that differ only in case, which are equal in SQL",
                value=f"{first[name.lower()]} and {name}",
                fix="rename one of them",
            )


def check_source_kind(owner: str, source: Any) -> Any:  # noqa: ANN401 - Feast's sources share no type with a path
    """Return a batch source after checking that it is of a supported kind and has a timestamp field.

    Raises:
        DefinitionError: it is not supported, or has no timestamp field.
    """
    if is_lake(source):
        raise DefinitionError(owner, NO_LAKES, value=source.path, fix=EXPORT_LAKE)
    if isinstance(source, FileSource) and is_remote(source_path(source)):
        raise DefinitionError(owner, f"has a source that {NO_STORES}", value=source.path, fix=USE_FILES)
    if not isinstance(source, FileSource | DuckDBSource):
        raise DefinitionError(
            owner,
            "has a source that cannot be read",
            value=type(source).__name__,
            fix="use a FileSource (Parquet or CSV file, folder or glob) or a DuckDBSource",
        )
    if not source.timestamp_field:
        raise DefinitionError(
            f"{owner} source {source.path!r}",
            "has no timestamp_field",
            fix="set timestamp_field to the column with the event time",
        )
    return source


def source_path(source: Any) -> str:  # noqa: ANN401 - as above
    """Return the path of a source for the plan."""
    return str(source.path).removeprefix("file://")


def _source(feast_view: FeatureView, tombstone: str | None) -> Source:
    source = check_source_kind(f"feature view {feast_view.name!r}", feast_view.batch_source)
    renamed = {plan_name: column for column, plan_name in source.field_mapping.items()}
    return Source(
        path=source_path(source),
        # As in Feast, a mapped time column is named by its name in the view.
        event_column=renamed.get(source.timestamp_field, source.timestamp_field),
        created_column=renamed.get(source.created_timestamp_column, source.created_timestamp_column) or None,
        tombstone_column=tombstone,
        columns=renamed,
    )


def check_tags(owner: str, tags: Mapping[str, str], known: Collection[str]) -> Mapping[str, str]:
    """Return tags after checking that all ``skewless.`` tags are known.

    Args:
        known: known tags; a tag that ends in a dot is followed by the name of a column.

    Raises:
        DefinitionError: a ``skewless.`` tag is unknown.
    """
    starts = tuple(tag for tag in known if tag.endswith("."))
    for tag in tags:
        if tag.startswith("skewless.") and tag not in known and not (starts and tag.startswith(starts)):
            names = sorted(f"{tag}COLUMN" if tag.endswith(".") else tag for tag in known)
            raise DefinitionError(f"{owner} tag", "is unknown", value=tag, fix=f"use one of {', '.join(names)}")
    return tags


def parse_duration_us(owner: str, tag: str, tags: Mapping[str, str], default: str = "0s") -> int:
    """Return the duration in a tag, microseconds.

    Raises:
        DefinitionError: it is not a duration.
    """
    text = tags.get(tag, default)
    match = _LENGTH.fullmatch(text)
    if match is None:
        raise DefinitionError(
            f"{owner} tag {tag!r}",
            "is not a duration",
            value=text,
            fix="write it as 90s, 15m, 1h or 2d",
        )
    return int(match[1]) * _UNITS[match[2]]
