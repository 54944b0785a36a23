"""The inventory of the prediction log: which of the rows that servers wrote are missing from it, or are in it twice.

Each row names the file in which its server wrote it, its place in this file, and the file's number of rows. A server
numbers its files from 0, and adds them to the log in this order. So no copy of these facts is needed anywhere else.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from skewless.infra.log.spool import ShippedFiles
from skewless.infra.platform.storage.database import Database
from skewless.infra.records.predictions.erased_rows import ErasedPredictions
from skewless.infra.records.predictions.reader import PredictionLog

_FILE = re.compile(r"(?P<writer>[0-9a-f]{12})-(?P<number>\d{6,})")
_QUERY = "SELECT file, max(rows), count(DISTINCT row), count(*) FROM rows GROUP BY file"


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Rows that the log does not have as servers wrote them.

    Args:
        missing: rows of files of which the log has other rows.
        files: names of files of which the log has no row, although it has earlier and later files of their server.
        duplicates: rows that the log has more than once, each repetition counted.
    """

    missing: int = 0
    files: tuple[str, ...] = ()
    duplicates: int = 0

    @property
    def is_complete(self) -> bool:
        """Return whether the log has each row once."""
        return not (self.missing or self.files or self.duplicates)

    def lines(self) -> list[str]:
        """Return the differences as text."""
        texts = [
            (self.missing, "predictions are missing: another row of their file is in the log"),
            (len(self.files), f"files of predictions are missing: {', '.join(self.files[:3])}"),
            (self.duplicates, "predictions are in the log more than once"),
        ]
        return [f"  {count:,} {text}" for count, text in texts if count]


def take_inventory(log: PredictionLog, database: Database, *, is_whole: bool) -> Inventory:
    """Return what a snapshot of the log lacks, except erased rows and files that were lost before they were added.

    Args:
        log: the snapshot.
        database: of the project.
        is_whole: whether it has all segments; else whole files are not looked for.

    Raises:
        StoreError: a log file is corrupt, or the database is unavailable.
    """
    found = log.query_rows(_QUERY, {})
    if not found.num_rows:
        return Inventory()
    erased = ErasedPredictions(database).counts()
    names, sizes, distinct, counts = (column.to_pylist() for column in found.columns)
    missing = sum(max(n - each - erased.get(name, 0), 0) for name, n, each in zip(names, sizes, distinct, strict=True))
    files = _find_gaps(names, ShippedFiles(database), erased) if is_whole else ()
    return Inventory(missing=missing, files=tuple(files), duplicates=sum(counts) - sum(distinct))


def _find_gaps(names: Iterable[str], shipped: ShippedFiles, erased: Mapping[str, int]) -> Iterable[str]:
    present: Mapping[str, set[int]] = defaultdict(set)
    for name in names:
        if (match := _FILE.fullmatch(name)) is not None:
            present[match["writer"]].add(int(match["number"]))
    for writer, numbers in sorted(present.items()):
        for number in sorted(set(range(min(numbers), max(numbers))) - numbers):
            name = f"{writer}-{number:06d}"
            if not shipped.is_new(writer, number) and name not in erased:
                yield name
