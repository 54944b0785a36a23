"""Read views for Feast: vectors of a response, or rows of values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from skewless.contract.clock import from_us
from skewless.contract.columns import Column
from skewless.contract.errors import RequestError
from skewless.contract.rows import ViewRead
from skewless.contract.status import BoolArray, Status, StatusArray
from skewless.contract.vector import view_status
from skewless.infra.reads.online.port import Marker
from skewless_feast.stored_views import DUMMY_KEY, StoredView, Table
from skewless_feast.values import SECOND_US, parse_keys, unpack_values

FeastRow = tuple[datetime | None, dict[str, Value] | None]
Rows = Sequence[bytes | None]
Markers = Mapping[str, Marker | None]
Decode = Callable[[Rows, Markers, int], tuple[ViewRead, StatusArray]]

_PRESENT, _NULL, _EXPIRED = int(Status.PRESENT), int(Status.NULL), int(Status.EXPIRED)
_STATUS_OF = {
    Status.PRESENT: FieldStatus.PRESENT,
    Status.NULL: FieldStatus.NULL_VALUE,
    Status.NOT_FOUND: FieldStatus.NOT_FOUND,
    Status.EXPIRED: FieldStatus.OUTSIDE_MAX_AGE,
    # A future row does not exist yet, as in a point-in-time join.
    Status.FUTURE: FieldStatus.NOT_FOUND,
}
_NO_FEATURES = np.zeros((0, 1), dtype=np.bool_)
_FIELD_STATUS = np.array([_STATUS_OF.get(status, FieldStatus.INVALID) for status in Status])


@dataclass(frozen=True, kw_only=True)
class ViewRequest:
    """The part of a request for one view.

    Args:
        features: field of ``Value`` of each requested feature, in the view's order.
        keys: the online key of each entity, None if a key is null or the view has no states.
        markers: the markers to read with them.
        decode: returns the columns of the stored rows of the keys, and the status of each row, from the rows, the
            values of the markers and the time, microseconds.
    """

    table: Table
    features: Mapping[str, str]
    keys: Sequence[bytes | None]
    decode: Decode
    markers: Sequence[str] = ()


def select_features(kinds: Mapping[str, str], names: Iterable[str] | None) -> dict[str, str]:
    """Return the features with some names, in the view's order (Feast passes them in random order); None: all.

    Args:
        kinds: field of ``Value`` of each feature, in the view's order.
    """
    requested = set(kinds if names is None else names)
    return {name: kind for name, kind in kinds.items() if name in requested}


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

    declared = dict.fromkeys([field.name for field in table.projection.features]) | dict(stored.kinds)
    kinds = {name: stored.kinds[name] for name in declared if name in stored.kinds}
    return ViewRequest(
        table=table,
        features=select_features(kinds, names),
        keys=stored.key_codec(project).encode_columns(parse_keys(view.keys, columns)),
        decode=decode,
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
    response.metadata.feature_names.val.extend([prefix + name for name in request.features])
    times = [
        _to_timestamp(event_us) if has_time else Timestamp()
        for event_us, has_time in zip(read.versions.event_ts.tolist(), _has_time(status).tolist(), strict=True)
    ]
    # In one step for all features: numpy's calls would take longer than the values of one row.
    nulls = np.stack([read.nulls[name] for name in request.features]) if request.features else _NO_FEATURES
    present = status == _PRESENT
    statuses = _FIELD_STATUS[np.where(nulls & present, _NULL, status)].tolist()
    columns = zip(request.features.items(), (~nulls & present).tolist(), statuses, strict=True)
    for (name, kind), has_value, field_statuses in columns:
        response.results.add(
            values=unpack_values(kind, read.values[name], has_value),
            statuses=field_statuses,
            event_timestamps=times,
        )


def add_version(response: GetOnlineFeaturesResponse, table: Table) -> None:
    """Add the version of a view to a response, once."""
    name = table.projection.name_alias or table.projection.name
    known = response.metadata.feature_view_metadata
    if name not in [item.name for item in known]:
        known.add(name=name, version=getattr(table, "current_version_number", 0) or 0)


def build_feast_rows(request: ViewRequest, rows: Rows, markers: Markers, now_us: int) -> list[FeastRow]:
    """Return a pair (time, values) per row, as ``OnlineStore.online_read``; an expired row has its time and nulls."""
    read, status = request.decode(rows, markers, now_us)
    present = status == _PRESENT
    columns = [
        unpack_values(kind, read.values[name], (present & ~read.nulls[name]).tolist())
        for name, kind in request.features.items()
    ]
    pairs = zip(read.versions.event_ts.tolist(), _has_time(status).tolist(), strict=True)
    times = [from_us(event_us) if has_time else None for event_us, has_time in pairs]
    values: Sequence[tuple[Value, ...]] = list(zip(*columns, strict=True)) or [()] * len(rows)
    return [
        (None, None) if event_time is None else (event_time, dict(zip(request.features, row, strict=True)))
        for event_time, row in zip(times, values, strict=True)
    ]


def table_keys(
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


def _has_time(status: StatusArray) -> BoolArray:
    has_time: BoolArray = (status == _PRESENT) | (status == _EXPIRED)
    return has_time


def _to_timestamp(event_us: int) -> Timestamp:
    seconds, rest_us = divmod(event_us, SECOND_US)
    return Timestamp(seconds=seconds, nanos=rest_us * 1_000)
