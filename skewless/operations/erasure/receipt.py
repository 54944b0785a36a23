"""The receipt of an erasure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

NOT_COVERED = (
    "backups",
    "datasets and reports that were written before",
    "reference rows of packages, which have values and no keys",
    "the quarantine folder, which keep_quarantine_days empties",
    "messages that still wait in streams, and predictions that other machines have not shipped",
)


@dataclass(frozen=True, kw_only=True)
class ErasureReceipt:
    """The result of an erasure.

    Args:
        at_us: time of its end, UTC microseconds.
        digest: of the salt and the keys; the project's record has it, too.
        salt: only the receipt has it: with the keys, it proves that the record is of this entity.
        rows, events: erased rows in the logs of views and of events.
        predictions, outcomes: removed from their logs.
        online: deleted rows and states in the online store.
        built: windowed views whose states were built again.
        objects: deleted files of logs.
        waiting: files of logs that other processes still read; `skewless housekeeping` deletes them.
        dry_run: nothing was changed; counts are of what would be.
    """

    at_us: int
    digest: str
    salt: str
    rows: int
    events: int
    predictions: int
    outcomes: int
    online: int = 0
    built: int = 0
    objects: int = 0
    waiting: int = 0
    dry_run: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, with the list of what an erasure does not cover."""
        return asdict(self) | {"not_covered": list(NOT_COVERED)}
