"""The interface of parity checkers, and their result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from skewless.contract.clock import Clock
from skewless.contract.status import BoolArray
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.port import BlockingOnlineReader, OnlineStore
from skewless.validation.parity_report import Mismatch

BATCH_KEYS = 500  # entities per read


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """The result of comparing some entities with the log.

    Args:
        keys: their key columns, without nulls, distinct.
        names: their keys in the store; empty if nothing could be read.
        stored: their stored values.
        available: whether the store could read each of them.
        faults: mismatches by row.
        at_us: time of the reads.
    """

    keys: pa.Table
    names: Sequence[bytes]
    stored: Sequence[bytes | None]
    available: BoolArray
    faults: Mapping[int, Mismatch]
    at_us: int

    @property
    def repairable(self) -> list[int]:
        """Return the rows that can be repaired."""
        return [row for row, fault in self.faults.items() if fault.repairable]


@dataclass(frozen=True, kw_only=True)
class ParityChecker(ABC):
    """Compares one view; writers may run meanwhile."""

    project: str
    views: OfflineViews
    reader: BlockingOnlineReader
    marker_history: MarkerHistory
    clock: Clock

    @abstractmethod
    def sample(self, n: int, seed: int) -> pa.Table:
        """Return the keys of at most n entities in the log, and of a few that are not in it."""

    @abstractmethod
    def check(self, keys: pa.Table) -> ParityResult:
        """Compare the online values with the log.

        Raises:
            StoreError: the store does not answer, or a log file is corrupt.
        """

    @abstractmethod
    def repair(self, result: ParityResult, store: OnlineStore) -> None:
        """Replace repairable values with those of the log, unless they have changed since they were read."""


def entity_of(keys: pa.Table, row: int) -> dict[str, Any]:
    """Return one row of key columns."""
    return {name: keys[name][row].as_py() for name in keys.column_names}
