"""Build reads without decoding row by row: from concatenated rows of several views, and from window features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from skewless.contract.rows import ColumnsOnAccess, PackedVersions, Versions, ViewRead
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.view import WindowView


class PackedReads(Mapping[str, Versions]):
    """The versions of the rows of several views, decoded on access.

    Args:
        record: per view, a field with its name and the type ``RowLayout.record``.
        packed: complete records, end to end.
    """

    def __init__(self, record: np.dtype[np.void], packed: bytes) -> None:
        self.record = record
        self.packed = packed

    def __getitem__(self, name: str) -> Versions:
        return PackedVersions(np.frombuffer(self.packed, self.record)[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.record.names or ())

    def __len__(self) -> int:
        return len(self.record.names or ())


def concatenate_versions(parts: Sequence[Mapping[str, Versions]]) -> Mapping[str, Versions]:
    """Return the versions of several parts, concatenated; all parts have the same views."""
    packed = [part for part in parts if isinstance(part, PackedReads)]
    if len(packed) == len(parts):
        return PackedReads(packed[0].record, b"".join([part.packed for part in packed]))
    return {name: Versions.concatenate([part[name] for part in parts]) for name in parts[0]}


class WindowVersions(Versions):
    """The versions of features of windows: no single row is their origin, so they have event times only."""

    def __init__(self, event_ts: Int64Array) -> None:
        # Past the frozen dataclass; the other fields are built on access, in `__getattr__`.
        self.__dict__["event_ts"] = event_ts

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as the fields of Versions
        if name not in Versions.__dataclass_fields__:
            raise AttributeError(name)
        self.__dict__.update(vars(Versions.empty(len(self.event_ts))), event_ts=self.event_ts)
        return self.__dict__[name]


def build_window_read(
    view: WindowView,
    features: Floats,
    t: Int64Array,
    available: BoolArray | None = None,
    has_key: BoolArray | None = None,
    known_to: Int64Array | None = None,
) -> ViewRead:
    """Return the read of n entities at times ``t``.

    Args:
        features: shape ``(n, n_features)``; NaN is null.
        t: microseconds, shape ``(n,)``.
        available: entities whose state could be read; the others are UNAVAILABLE. None: all.
        has_key: entities with a complete key; the others have no row. None: all.
        known_to: all events known by this time are in the features; not after t. None: t.
    """
    nulls = np.isnan(features)
    if available is None and has_key is None:
        has_row = np.ones(len(t), dtype=np.bool_)
    else:
        has_row = np.logical_and(True if available is None else available, True if has_key is None else has_key)
        nulls |= ~has_row[:, None]
        features = np.where(nulls, np.nan, features)
    positions = {column.name: i for i, column in enumerate(view.features)}
    return ViewRead(
        has_row=has_row,
        available=True,
        versions=WindowVersions(t if known_to is None else known_to),
        values=ColumnsOnAccess(positions, lambda name: features[:, positions[name]]),
        nulls=ColumnsOnAccess(positions, lambda name: nulls[:, positions[name]]),
        mask=nulls,
        block=features,
        unavailable=None if available is None else ~available,
    )
