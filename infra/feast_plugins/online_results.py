"""Convert reads of the online store to Feast's forms: messages of a response, or rows of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType

from skewless.contract.clock import from_us
from skewless.contract.columns import Column
from skewless.contract.errors import RequestError
from skewless.contract.rows import ViewRead
from skewless.contract.status import BoolArray, Status, StatusArray
from skewless.contract.vector import view_status
from skewless.infra.feast_plugins.entity_keys import encode_keys
from skewless.infra.feast_plugins.stored_views import StoredView, Table
from skewless.infra.feast_plugins.values import unpack_values
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

FeastRow = tuple[datetime | None, dict[str, Value] | None]

# Feast passes names of features in random order, so a cache of requests could grow without end.
_MAX_CACHED = 1_000
_PRESENT, _EXPIRED = int(Status.PRESENT), int(Status.EXPIRED)


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

    @classmethod
    def select(cls, stored: StoredView, table: Table, names: Sequence[str] | None) -> ViewFeatures:
        """Return the features with some names (Feast passes them in random order); None: all features."""
        order = _order(stored, table)
        chosen = list(order) if names is None else sorted(names, key=lambda name: order.get(name, len(order)))
        view, types, layout = table.projection.name_to_use(), stored.types, stored.codec.layout
        positions, kinds = [layout.positions[name] for name in chosen], [stored.kinds[name] for name in chosen]
        return cls(
            names=chosen,
            positions=np.array(positions, dtype=np.intp),
            kinds=kinds,
            writers=[cell_writer(kind) for kind in kinds],
            types={f"{view}__{name}": types[name] for name in chosen} | {name: types[name] for name in chosen},
        )


@dataclass(frozen=True, kw_only=True)
class ViewRequest:
    """The part of a request for one latest-value view.

    Args:
        keys: the online key of each entity, None if a key is null.
        markers: the markers to read with them: none.
    """

    stored: StoredView
    table: Table
    features: ViewFeatures
    keys: Sequence[bytes | None]
    markers: Sequence[str] = ()

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the features, in the view's order."""
        return self.features.names

    def decode(self, rows: Sequence[bytes | None], now_us: int) -> tuple[ViewRead, StatusArray]:
        """Return the columns of the rows, and the status of each row at a time."""
        read = self.stored.codec.decode(rows, numbers=False)
        return read, view_status(read, now_us, self.stored.view.ttl_us)


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
    view = stored.view
    check_join_keys(table, view.keys, columns)
    declared = tuple([field.name for field in table.projection.features])
    # With the declared features: projections of one name may have other features.
    version = (table.projection.name_to_use(), declared, None if names is None else tuple(names))
    features = stored.memory.get(version)
    if not isinstance(features, ViewFeatures):
        features = ViewFeatures.select(stored, table, names)
        if len(stored.memory) >= _MAX_CACHED:
            stored.memory.clear()
        stored.memory[version] = features
    return ViewRequest(
        stored=stored, table=table, features=features, keys=encode_keys(stored.key_codec(project), view, columns)
    )


def add_features(
    response: GetOnlineFeaturesResponse,
    request: ViewRequest,
    rows: Sequence[bytes | None],
    now_us: int,
    *,
    full_names: bool,
) -> None:
    """Add one view's features to a response.

    Args:
        rows: the stored rows of the keys.
        full_names: prefix features with the view's name.
    """
    read, status = request.decode(rows, now_us)
    prefix = f"{request.table.projection.name_to_use()}__" if full_names else ""
    response.metadata.feature_names.val.extend([prefix + name for name in request.names])
    features = request.features
    nulls = np.asarray(read.mask).T[features.positions]
    event_times = encode_event_times(read.versions.event_ts, _has_time(status))
    present = find_present(nulls, status)
    # For a few rows, numpy's calls take longer than the values (see `vectors`).
    if len(rows) <= FEW:
        cells = request.stored.codec.cells(rows, read.has_row)
        entries = encode_cells(features.writers, [cells[position] for position in features.positions.tolist()], present)
    else:
        entries = encode_columns(features.kinds, [read.values[name] for name in features.names], present)
    response.MergeFromString(encode_response(entries, nulls, status, event_times))


def build_feast_rows(request: ViewRequest, rows: Sequence[bytes | None], now_us: int) -> list[FeastRow]:
    """Return a pair (time, values) per row, as ``OnlineStore.online_read``; an expired row has its time and nulls."""
    read, status = request.decode(rows, now_us)
    present = status == _PRESENT
    columns = [
        unpack_values(request.stored.kinds[name], read.values[name], present & ~read.nulls[name])
        for name in request.names
    ]
    pairs = zip(read.versions.event_ts.tolist(), _has_time(status).tolist(), strict=True)
    times = [from_us(event_us) if has_time else None for event_us, has_time in pairs]
    values: Sequence[tuple[Value, ...]] = list(zip(*columns, strict=True)) or [()] * len(rows)
    return [
        (None, None) if event_time is None else (event_time, dict(zip(request.names, row, strict=True)))
        for event_time, row in zip(times, values, strict=True)
    ]


def _has_time(status: StatusArray) -> BoolArray:
    has_time: BoolArray = (status == _PRESENT) | (status == _EXPIRED)
    return has_time


def _order(stored: StoredView, table: Table) -> dict[str, int]:
    declared = [field.name for field in table.projection.features]
    names = dict.fromkeys([*declared, *(column.name for column in stored.view.features)])
    return {name: i for i, name in enumerate(name for name in names if name in stored.kinds)}
