"""The applied positions of stored states are decoded late, and equal those that were packed."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from skewless.contract.windows.tiles import AppliedPositions, StoredPositions

SLOTS = [[(7, 3), (-5, 2**62)], [], [(-1, 0)]]  # partition and position, of each entity
NAMES = [field.name for field in fields(AppliedPositions)]


def stored(slots: list[list[tuple[int, int]]]) -> StoredPositions:
    return StoredPositions([np.array(each, dtype="<i8").tobytes() for each in slots])


def plain(slots: list[list[tuple[int, int]]]) -> AppliedPositions:
    rows = [(entity, *slot) for entity, each in enumerate(slots) for slot in each]
    entity, partition, seq = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return AppliedPositions(entity=entity, partition=partition, first=seq, seq=seq)


def values(positions: AppliedPositions) -> dict[str, list[int]]:
    return {name: getattr(positions, name).tolist() for name in NAMES}


def test_stored_positions() -> None:
    assert values(stored(SLOTS)) == values(plain(SLOTS))
    assert values(stored([])) == values(AppliedPositions.empty())
    for start, stop in ((0, 3), (1, 3), (0, 2), (1, 2), (2, 2)):
        expected = values(plain(SLOTS[start:stop]))
        assert (
            values(stored(SLOTS).of_entities(start, stop)) == values(plain(SLOTS).of_entities(start, stop)) == expected
        )


def test_positions_of_groups_are_numbered_one_after_the_other() -> None:
    sizes = np.array([3, 2, 3])
    expected = values(plain([*SLOTS, [], [], *SLOTS]))
    for make in (stored, plain):
        parts = [make(SLOTS), AppliedPositions.empty(), stored(SLOTS)]
        assert values(AppliedPositions.concatenate(parts, sizes)) == expected
    assert values(AppliedPositions.concatenate([stored(SLOTS), stored(SLOTS)], np.array([3, 3]))) == values(
        plain([*SLOTS, *SLOTS])
    )
