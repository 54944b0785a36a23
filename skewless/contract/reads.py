"""Reads of views that were not unpacked row by row: of several views side by side, and of windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from skewless.contract.rows import PackedVersions, Versions, ViewRead
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.view import WindowView


class PackedReads(Mapping[str, Versions]):
    """The versions of rows of several views that stand side by side.

    Args:
        record: per view, a field with its name and ``RowLayout.record``.
        packed: whole records, end to end.
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


def joined(parts: Sequence[Mapping[str, Versions]]) -> Mapping[str, Versions]:
    """Return the versions of rows of the same views, one part after the other."""
    packed = [part for part in parts if isinstance(part, PackedReads)]
    if len(packed) == len(parts):
        return PackedReads(packed[0].record, b"".join([part.packed for part in packed]))
    return {name: Versions.joined([part[name] for part in parts]) for name in parts[0]}


def window_read(
    view: WindowView,
    features: Floats,
    t: Int64Array,
    answered: BoolArray | None = None,
    keyed: BoolArray | None = None,
    known_to: Int64Array | None = None,
) -> ViewRead:
    """Return the read of n entities at times ``t``.

    Args:
        features: shape ``(n, n_features)``; NaN is null.
        t: microseconds, shape ``(n,)``.
        answered: where the state could answer; elsewhere the read is UNAVAILABLE. By default everywhere.
        keyed: where the entity's key is whole; elsewhere nothing is found. By default everywhere.
        known_to: up to when all events that had arrived by then are in the features, not after t; by default t.
    """
    everywhere = np.ones(len(t), dtype=np.bool_)
    answered = everywhere if answered is None else answered
    found = answered if keyed is None else answered & keyed
    nulls = np.isnan(features) | ~found[:, None]
    names = [column.name for column in view.features]
    versions = Versions(
        event_ts=t if known_to is None else known_to,
        created_ts=Versions.empty(len(t)).created_ts,
        seq=np.full(len(t), -1, dtype=np.int64),
        run_id=np.full(len(t), -1, dtype=np.int64),
        tombstone=np.zeros(len(t), dtype=np.bool_),
    )
    return ViewRead(
        found=found,
        available=True,
        versions=versions,
        values={name: features[:, i] for i, name in enumerate(names)},
        nulls={name: nulls[:, i] for i, name in enumerate(names)},
        mask=nulls,
        block=np.where(nulls, np.nan, features),
        unanswered=~answered,
    )
