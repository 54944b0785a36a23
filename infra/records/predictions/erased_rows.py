"""The places of erased predictions in the files of their servers: the inventory of the log does not miss them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents


class ErasedPredictions:
    """The erased rows of each file; any process may use it."""

    def __init__(self, database: Database) -> None:
        self._documents = Documents(database, "erased_predictions")

    def add(self, rows: Iterable[tuple[str, int]]) -> None:
        """Record rows, each as its file and its place; a recorded one is not recorded twice."""
        places: Mapping[str, set[int]] = defaultdict(set)
        for file, row in rows:
            places[file].add(row)
        for file, found in sorted(places.items()):
            with self._documents.edit(file, []) as known:
                known[:] = sorted({*known, *found})

    def counts(self) -> dict[str, int]:
        """Return the number of erased rows of each file that had some."""
        return {file: len(places) for file, places in self._documents.list_all().items()}
