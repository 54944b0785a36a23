"""Where the rows of several views come from, still packed: cut out when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from skewless.contract.arrays import end_to_end
from skewless.contract.row_layout import Bytes, RowLayout
from skewless.contract.rows import PackedVersions, Versions

Places = Mapping[str, tuple[RowLayout, int]]


class PackedReads(Mapping[str, Versions]):
    """The versions of rows of several views that stand side by side.

    Args:
        places: per view, the layout of its rows and the byte where they begin.
        raw: C-contiguous, shape ``(n, size of all)``.
    """

    def __init__(self, places: Places, raw: Bytes) -> None:
        self.places = places
        self.raw = raw

    def __getitem__(self, name: str) -> Versions:
        layout, start = self.places[name]
        return PackedVersions(layout, self.raw[:, start : start + layout.size])

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def joined(parts: Sequence[Mapping[str, Versions]]) -> Mapping[str, Versions]:
    """Return the versions of rows of the same views, one part after the other."""
    packed = [part for part in parts if isinstance(part, PackedReads)]
    if len(packed) == len(parts):
        raw = end_to_end([part.raw for part in packed])
        return PackedReads(packed[0].places, raw.reshape(-1, packed[0].raw.shape[1]))
    return {name: Versions.joined([part[name] for part in parts]) for name in parts[0]}
