"""Where the rows of several views come from, still packed: cut out when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from skewless.contract.rows import PackedVersions, Versions


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
