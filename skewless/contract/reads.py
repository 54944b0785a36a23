"""Build reads without decoding row by row: from concatenated rows of several views, and from window features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from skewless.contract.rows import PackedVersions, Versions, ViewRead
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.view import WindowView


class PackedReads(Mapping[str, Versions]):
    """The versions of the rows of several views, decoded on access, and of the features of windowed views.

    Args:
        record: per view, a field with its name and the type ``RowLayout.record``.
        packed: complete records, end to end.
        windows: names of windowed views; no row is the origin of their features, so only the times are known.
        known_to: time up to which all events are in these features, microseconds, shape ``(n, n_windows)``.
    """

    def __init__(self, record: np.dtype[np.void], packed: bytes, windows: Sequence[str], known_to: Int64Array) -> None:
        self.record = record
        self.packed = packed
        self.windows = windows
        self.known_to = known_to

    def __getitem__(self, name: str) -> Versions:
        if name not in self.windows:
            return PackedVersions(np.frombuffer(self.packed, self.record)[name])
        known_to = self.known_to[:, self.windows.index(name)]
        return replace(Versions.empty(len(known_to)), event_ts=known_to)

    def __iter__(self) -> Iterator[str]:
        return iter((*(self.record.names or ()), *self.windows))

    def __len__(self) -> int:
        return len(self.record.names or ()) + len(self.windows)


def concatenate_versions(parts: Sequence[Mapping[str, Versions]]) -> Mapping[str, Versions]:
    """Return the versions of several parts, concatenated; all parts have the same views."""
    packed = [part for part in parts if isinstance(part, PackedReads)]
    if len(packed) == len(parts):
        first, rows = packed[0], b"".join([part.packed for part in packed])
        return PackedReads(first.record, rows, first.windows, np.concatenate([part.known_to for part in packed]))
    return {name: Versions.concatenate([part[name] for part in parts]) for name in parts[0]}


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
    everywhere = np.ones(len(t), dtype=np.bool_)
    available = everywhere if available is None else available
    has_row = available if has_key is None else available & has_key
    nulls = np.isnan(features) | ~has_row[:, None]
    names = [column.name for column in view.features]
    return ViewRead(
        has_row=has_row,
        available=True,
        versions=replace(Versions.empty(len(t)), event_ts=t if known_to is None else known_to),
        values={name: features[:, i] for i, name in enumerate(names)},
        nulls={name: nulls[:, i] for i, name in enumerate(names)},
        mask=nulls,
        block=np.where(nulls, np.nan, features),
        unavailable=~available,
    )
