"""What parity asks of a kind of view, and what both kinds have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from skewless.contract.status import BoolArray
from skewless.infra.online.port import OnlineStore
from skewless.validation.parity_report import Mismatch

BATCH_KEYS = 500  # entities that are read at once


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """What came of comparing some entities with the log.

    Args:
        keys: their key columns, whole and distinct.
        names: under which they are stored; empty where nothing could be read.
        stored: what was found there.
        available: for which of them the store could answer.
        faults: by row, why it is not what the log says.
        at_us: when they were read.
    """

    keys: pa.Table
    names: Sequence[bytes]
    stored: Sequence[bytes | None]
    available: BoolArray
    faults: Mapping[int, Mismatch]
    at_us: int

    @property
    def repairable(self) -> list[int]:
        """Return the rows that a repair may help."""
        return [row for row, fault in self.faults.items() if fault.repairable]

    def entity(self, row: int) -> dict[str, Any]:
        """Return the key of a row."""
        return entity_of(self.keys, row)


class ParityChecker(Protocol):
    """Compares one view; it may do so beside writers that go on."""

    def sample(self, n: int, seed: int) -> pa.Table:
        """Return the keys of entities that the log knows, at most n, and of a few that it does not."""
        ...

    def check(self, keys: pa.Table) -> ParityResult:
        """Compare what is online with the log.

        Raises:
            StoreError: the store is away, or a log file is damaged.
        """
        ...

    def repair(self, checked: ParityResult, store: OnlineStore) -> None:
        """Put what the log says in the place of what can be repaired and has not changed since it was read."""
        ...


def entity_of(keys: pa.Table, row: int) -> dict[str, Any]:
    """Return one row of key columns."""
    return {name: keys[name][row].as_py() for name in keys.column_names}
