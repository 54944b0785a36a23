"""Answer requests for online features in Feast's forms: messages of a response, or rows of values.

Feast's functions resolve the request and complete the response.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from feast import FeatureService, utils
from feast.infra.registry.base_registry import BaseRegistry
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType

from skewless.contract.clock import from_us
from skewless.contract.columns import Column
from skewless.contract.errors import RequestError
from skewless.contract.rows import RowCodec, ViewRead
from skewless.contract.status import BoolArray, Status, StatusArray
from skewless.contract.vector import view_status
from skewless.infra.feast_plugins.stored_views import DUMMY_KEY, StoredView, Table
from skewless.infra.feast_plugins.values import parse_keys, unpack_values
from skewless.infra.feast_plugins.vectors import (
    FEW,
    CellWriter,
    cell_writer,
    encode_cells,
    encode_columns,
    encode_event_times,
    encode_response,
    find_present,
)
from skewless.infra.online.port import Marker

FeastRow = tuple[datetime | None, dict[str, Value] | None]
Rows = Sequence[bytes | None]
Markers = Mapping[str, Marker | None]
Decode = Callable[[Rows, Markers, int], tuple[ViewRead, StatusArray]]

# Feast passes names of features in random order, so a cache of requests could grow without end.
_MAX_CACHED = 1_000
_PRESENT, _EXPIRED = int(Status.PRESENT), int(Status.EXPIRED)
EntityRows = list[dict[str, Any]] | Mapping[str, Any]
RequestedTable = tuple[Table, list[str], Mapping[str, Sequence[Value]]]
"""A view to read, its requested features, and its key columns by the view's names of its join keys."""


@dataclass(frozen=True, kw_only=True)
class ViewFeatures:
    """Requested features of a view, cached between requests.

    Args:
        names: the features, in the view's order.
        positions: position of each feature in a row.
        kinds: per feature, its field of ``Value``.
        writers: per feature, the function that encodes its cells.
        types: Feast's type of each feature, by short and by full name.
    """

    names: Sequence[str]
    positions: npt.NDArray[np.intp]
    kinds: Sequence[str]
    writers: Sequence[CellWriter]
    types: Mapping[str, ValueType]


@dataclass(frozen=True, kw_only=True)
class ViewRequest:
    """The part of a request for one view.

    Args:
        keys: the online key of each entity, None if a key is null or the view has no states.
        markers: the markers to read with them.
        decode: returns the columns of the stored rows of the keys, and the status of each row, from the rows, the
            values of the markers and the time, microseconds.
        codec: of the rows; None: the view is windowed, and the rows are states.
    """

    table: Table
    features: ViewFeatures
    keys: Sequence[bytes | None]
    decode: Decode
    markers: Sequence[str] = ()
    codec: RowCodec | None = None


def select_features(
    cache: dict[object, ViewFeatures],
    table: Table,
    names: Sequence[str] | None,
    columns: Callable[[], Mapping[str, tuple[int, str, ValueType]]],
) -> ViewFeatures:
    """Return the features with some names (Feast passes them in random order); None: all features.

    Args:
        cache: of the view.
        columns: returns, for each feature in the view's order, its position in a row, its field of ``Value``, and
            Feast's type.
    """
    view = table.projection.name_to_use()
    # With the declared features: projections of one name may have other features.
    version = (
        view,
        tuple([field.name for field in table.projection.features]),
        None if names is None else tuple(names),
    )
    if version not in cache:
        if len(cache) >= _MAX_CACHED:
            cache.clear()
        types = columns()
        order = list(types)
        chosen = order if names is None else sorted(names, key=order.index)
        kinds, feast_types = [types[name][1] for name in chosen], {name: types[name][2] for name in chosen}
        cache[version] = ViewFeatures(
            names=chosen,
            positions=np.array([types[name][0] for name in chosen], dtype=np.intp),
            kinds=kinds,
            writers=[cell_writer(kind) for kind in kinds],
            types={f"{view}__{name}": kind for name, kind in feast_types.items()} | feast_types,
        )
    return cache[version]


def add_version(response: GetOnlineFeaturesResponse, table: Table) -> None:
    """Add the version of a view to a response, once."""
    name = table.projection.name_alias or table.projection.name
    known = response.metadata.feature_view_metadata
    if name not in [item.name for item in known]:
        known.add(name=name, version=getattr(table, "current_version_number", 0) or 0)


def check_join_keys(table: Table, keys: Sequence[Column], columns: Mapping[str, Sequence[Value]]) -> None:
    """Check that a request has all join keys of a view.

    Raises:
        RequestError: a join key is missing.
    """
    missing = sorted(column.name for column in keys if column.name not in columns)
    if missing:
        raise RequestError(
            f"view {table.name!r}", "needs a join key that is not in the request", value=missing[0], fix="send it"
        )


def build_view_request(
    stored: StoredView, table: Table, names: Sequence[str] | None, project: str, columns: Mapping[str, Sequence[Value]]
) -> ViewRequest:
    """Return the part of a request for a view.

    Args:
        names: the features, in any order; None: all features.
        columns: the entities' keys, by join key.

    Raises:
        RequestError: a join key is missing, or has a value of another type.
    """
    view, codec = stored.view, stored.codec
    check_join_keys(table, view.keys, columns)

    def decode(rows: Rows, _markers: Markers, now_us: int) -> tuple[ViewRead, StatusArray]:
        read = codec.decode(rows, numbers=False)
        return read, view_status(read, now_us, view.ttl_us)

    return ViewRequest(
        table=table,
        features=select_features(stored.memory, table, names, lambda: _columns(stored, table)),
        keys=stored.key_codec(project).encode_columns(parse_keys(view.keys, columns)),
        decode=decode,
        codec=codec,
    )


def add_features(
    response: GetOnlineFeaturesResponse,
    request: ViewRequest,
    rows: Rows,
    markers: Markers,
    now_us: int,
    *,
    full_names: bool,
) -> None:
    """Add one view's features to a response.

    Args:
        rows: the stored rows of the keys.
        markers: values of the markers.
        full_names: prefix features with the view's name.
    """
    read, status = request.decode(rows, markers, now_us)
    prefix = f"{request.table.projection.name_to_use()}__" if full_names else ""
    response.metadata.feature_names.val.extend([prefix + name for name in request.features.names])
    features = request.features
    mask = np.stack(list(read.nulls.values()), axis=1) if read.mask is None else np.asarray(read.mask)
    nulls = mask.T[features.positions]
    event_times = encode_event_times(read.versions.event_ts, _has_time(status))
    present = find_present(nulls, status)
    # For a few rows, numpy's calls take longer than the values (see `vectors`).
    if request.codec is not None and len(rows) <= FEW:
        cells = request.codec.cells(rows, read.has_row)
        entries = encode_cells(features.writers, [cells[position] for position in features.positions.tolist()], present)
    else:
        entries = encode_columns(features.kinds, [read.values[name] for name in features.names], present)
    response.MergeFromString(encode_response(entries, nulls, status, event_times))


def build_feast_rows(request: ViewRequest, rows: Rows, markers: Markers, now_us: int) -> list[FeastRow]:
    """Return a pair (time, values) per row, as ``OnlineStore.online_read``; an expired row has its time and nulls."""
    read, status = request.decode(rows, markers, now_us)
    present = status == _PRESENT
    columns = [
        unpack_values(kind, read.values[name], present & ~read.nulls[name])
        for name, kind in zip(request.features.names, request.features.kinds, strict=True)
    ]
    pairs = zip(read.versions.event_ts.tolist(), _has_time(status).tolist(), strict=True)
    times = [from_us(event_us) if has_time else None for event_us, has_time in pairs]
    values: Sequence[tuple[Value, ...]] = list(zip(*columns, strict=True)) or [()] * len(rows)
    return [
        (None, None) if event_time is None else (event_time, dict(zip(request.features.names, row, strict=True)))
        for event_time, row in zip(times, values, strict=True)
    ]


def _has_time(status: StatusArray) -> BoolArray:
    has_time: BoolArray = (status == _PRESENT) | (status == _EXPIRED)
    return has_time


def _columns(stored: StoredView, table: Table) -> dict[str, tuple[int, str, ValueType]]:
    declared = [field.name for field in table.projection.features]
    names = dict.fromkeys([*declared, *(column.name for column in stored.view.features)])
    positions = stored.codec.layout.positions
    return {name: (positions[name], stored.kinds[name], stored.types[name]) for name in names if name in stored.kinds}


def answer_request(
    registry: BaseRegistry,
    project: str,
    features: list[str] | FeatureService,
    entity_rows: EntityRows,
    read: Callable[[GetOnlineFeaturesResponse, Sequence[RequestedTable]], dict[str, ValueType]],
    *,
    full_names: bool,
) -> OnlineResponse:
    """Return the response to a request, with on-demand features.

    Args:
        read: adds the features of all views to a response that has the keys and request fields; returns Feast's type
            of each feature, by short and by full name.
        full_names: prefix features with the view's name.

    Raises:
        RequestError: the request has no rows, so its keys are unknown.
        ValueError: the rows have different columns.
        FeastError: a feature is not defined, or a field of the request is missing.
    """
    resolved = utils._prepare_entities_to_read_from_online_store(  # noqa: SLF001 - Feast resolves requests only here
        registry=registry,
        project=project,
        features=features,
        entity_values=_entity_columns(entity_rows),
        full_feature_names=full_names,
        native_entity_values=True,
    )
    keys, views, join_keys, on_demand, refs, names, response = resolved
    types = read(response, [(table, wanted, _table_keys(table, keys, join_keys)) for table, wanted in views])
    if on_demand:
        utils._augment_response_with_on_demand_transforms(  # noqa: SLF001 - as above
            response, list(refs), list(on_demand), full_names, feature_types=types
        )
    utils._drop_unneeded_columns(response, set(names))  # noqa: SLF001 - as above
    return OnlineResponse(response, feature_types=types)


def _table_keys(
    table: Table, values: Mapping[str, Sequence[Value]], join_keys: Mapping[str, str]
) -> dict[str, Sequence[Value]]:
    """Return a view's key columns from the key columns of a request, which may use names of a projection.

    Args:
        values: name of the join key in the request -> its values.
        join_keys: entity -> join key.
    """
    own = [str(column.name) for column in table.entity_columns] or [join_keys[name] for name in table.entities]
    if not own:  # Feast takes the entity of a view without entities from what its registry keeps
        return {DUMMY_KEY: [Value(string_val="")] * len(next(iter(values.values()), ()))}
    requested = {name: table.projection.join_key_map.get(name, name) for name in own}
    return {name: values[alias] for name, alias in requested.items() if alias in values}


def _entity_columns(rows: EntityRows) -> Mapping[str, Any]:
    if not isinstance(rows, list):
        return rows
    if not rows:
        raise RequestError(
            "entity_rows", "has no row", fix="give at least one row, or columns: {join key: []} gives an empty response"
        )
    columns: dict[str, list[Any]] = {name: [] for name in rows[0]}
    for row in rows:
        if row.keys() != columns.keys():
            raise ValueError("All entity_rows must have the same keys.")
        for name, value in row.items():
            columns[name].append(value)
    return columns
