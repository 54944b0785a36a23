"""Reads of the online store as Feast wants them answered: messages of a response, or rows of values."""

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
from skewless.infra.feast_plugins.entity_keys import key_bytes
from skewless.infra.feast_plugins.stored_views import StoredView, Table
from skewless.infra.feast_plugins.values import unpack_values
from skewless.infra.feast_plugins.vectors import (
    FEW,
    CellWriter,
    cell_entries,
    cell_writer,
    column_entries,
    event_stamps,
    response_bytes,
    shown_cells,
)

FeastRow = tuple[datetime | None, dict[str, Value] | None]

_MOST = 1_000
_PRESENT, _EXPIRED = int(Status.PRESENT), int(Status.EXPIRED)


@dataclass(frozen=True, kw_only=True)
class ViewFeatures:
    """Features of a view that are asked for again and again.

    Args:
        names: the features, in the view's own order.
        places: of the features in a row.
        kinds: per feature, the field of ``Value`` that holds it.
        types: Feast's type of each feature, by short and by full name.
        writers: per feature, what writes its cells.
    """

    names: Sequence[str]
    places: npt.NDArray[np.intp]
    kinds: Sequence[str]
    writers: Sequence[CellWriter]
    types: Mapping[str, ValueType]

    @classmethod
    def of(cls, stored: StoredView, table: Table, names: Sequence[str] | None) -> ViewFeatures:
        """Return the features with some names, in any order, since Feast takes them from a set; None: all."""
        order = _order(stored, table)
        wanted = list(order) if names is None else sorted(names, key=lambda name: order.get(name, len(order)))
        view, types, layout = table.projection.name_to_use(), stored.types, stored.codec.layout
        places, kinds = [layout.positions[name] for name in wanted], [stored.kinds[name] for name in wanted]
        return cls(
            names=wanted,
            places=np.array(places, dtype=np.intp),
            kinds=kinds,
            writers=[cell_writer(kind) for kind in kinds],
            types={f"{view}__{name}": types[name] for name in wanted} | {name: types[name] for name in wanted},
        )


@dataclass(frozen=True, kw_only=True)
class ViewRequest:
    """What a request wants of one view.

    Args:
        keys: the key of each entity, None where it has a null.
        marks: the markers to be read with them: none.
    """

    stored: StoredView
    table: Table
    wanted: ViewFeatures
    keys: Sequence[bytes | None]
    marks: Sequence[str] = ()

    @property
    def names(self) -> Sequence[str]:
        """Return the features, in the view's own order."""
        return self.wanted.names

    def decode(self, rows: Sequence[bytes | None], now_us: int) -> tuple[ViewRead, StatusArray]:
        """Return the columns of the rows that were read, and what became of each at a time."""
        read = self.stored.codec.decode(rows, numbers=False)
        return read, view_status(read, now_us, self.stored.view.ttl_us)


def say_version(response: GetOnlineFeaturesResponse, table: Table) -> None:
    """Add the version of a view to a response, once."""
    name = table.projection.name_alias or table.projection.name
    known = response.metadata.feature_view_metadata
    if name not in [item.name for item in known]:
        known.add(name=name, version=getattr(table, "current_version_number", 0) or 0)


def refuse_missing_keys(table: Table, keys: Sequence[Column], columns: Mapping[str, Sequence[Value]]) -> None:
    """Refuse a request that lacks a join key of a view.

    Raises:
        RequestError: it does.
    """
    missing = sorted(column.name for column in keys if column.name not in columns)
    if missing:
        raise RequestError(
            f"view {table.name!r}", "needs a join key that the request lacks", value=missing[0], fix="send it"
        )


def ask(
    stored: StoredView, table: Table, names: Sequence[str] | None, project: str, columns: Mapping[str, Sequence[Value]]
) -> ViewRequest:
    """Return what a request wants of a view.

    Args:
        names: the features, in any order; None: all.
        columns: the entities' keys, by join key.

    Raises:
        RequestError: a join key is missing, or has a value of another type.
    """
    view = stored.view
    refuse_missing_keys(table, view.keys, columns)
    declared = tuple([field.name for field in table.projection.features])
    version = (table.projection.name_to_use(), declared, None if names is None else tuple(names))
    wanted = stored.memory.get(version)
    if not isinstance(wanted, ViewFeatures):
        wanted = ViewFeatures.of(stored, table, names)
        if len(stored.memory) >= _MOST:
            stored.memory.clear()
        stored.memory[version] = wanted
    return ViewRequest(
        stored=stored, table=table, wanted=wanted, keys=key_bytes(stored.key_codec(project), view, columns)
    )


def respond(
    response: GetOnlineFeaturesResponse,
    asked: ViewRequest,
    rows: Sequence[bytes | None],
    now_us: int,
    *,
    full_names: bool,
) -> None:
    """Add one view's features to a response.

    Args:
        rows: what the store holds under the keys.
        full_names: write the view's name before those of its features.
    """
    read, status = asked.decode(rows, now_us)
    prefix = f"{asked.table.projection.name_to_use()}__" if full_names else ""
    response.metadata.feature_names.val.extend([prefix + name for name in asked.names])
    wanted = asked.wanted
    nulls = np.asarray(read.mask).T[wanted.places]
    stamps = event_stamps(read.versions.event_ts, _has_time(status))
    shown = shown_cells(nulls, status)
    if len(rows) <= FEW:
        cells = asked.stored.codec.cells(rows, read.has_row)
        entries = cell_entries(wanted.writers, [cells[place] for place in wanted.places.tolist()], shown)
    else:
        entries = column_entries(wanted.kinds, [read.values[name] for name in wanted.names], shown)
    response.MergeFromString(response_bytes(entries, nulls, status, stamps))


def feast_rows(asked: ViewRequest, rows: Sequence[bytes | None], now_us: int) -> list[FeastRow]:
    """Return one pair a row, as ``OnlineStore.online_read`` does; a row beyond its ttl has its time and nulls."""
    read, status = asked.decode(rows, now_us)
    present = status == _PRESENT
    columns = [
        unpack_values(asked.stored.kinds[name], read.values[name], present & ~read.nulls[name]) for name in asked.names
    ]
    pairs = zip(read.versions.event_ts.tolist(), _has_time(status).tolist(), strict=True)
    times = [from_us(moment) if shown else None for moment, shown in pairs]
    values: Sequence[tuple[Value, ...]] = list(zip(*columns, strict=True)) or [()] * len(rows)
    return [
        (None, None) if moment is None else (moment, dict(zip(asked.names, row, strict=True)))
        for moment, row in zip(times, values, strict=True)
    ]


def _has_time(status: StatusArray) -> BoolArray:
    has_time: BoolArray = (status == _PRESENT) | (status == _EXPIRED)
    return has_time


def _order(stored: StoredView, table: Table) -> dict[str, int]:
    declared = [field.name for field in table.projection.features]
    names = dict.fromkeys([*declared, *(column.name for column in stored.view.features)])
    return {name: i for i, name in enumerate(name for name in names if name in stored.kinds)}
