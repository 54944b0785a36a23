"""The label rows of a training set in the storage: used rows in the order of their times, read some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.plan import FeaturePlan
from skewless.infra.log.reading import regroup
from skewless.infra.platform.storage.objects import ObjectStorage, StoredObject
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.entity_file import EntityFileRows
from skewless.infra.reads.offline.labels import entity_rows, request_arrays
from skewless.training.dataset import count_contradictions, select_usable

_BATCH_ROWS = 100_000
# The column of the parts; a feature's name has two underscores.
_PART_TIME = "t"


@dataclass(frozen=True, kw_only=True)
class StoredLabels:
    """The used rows of a label table in a Parquet file, as the entity rows of a dataset.

    Args:
        stored: the file, with the columns of ``read_labels``.
        plan: of the service.
        name: of the label table in errors.
    """

    storage: ObjectStorage
    stored: StoredObject
    plan: FeaturePlan
    name: str

    @property
    def time_column(self) -> str:
        """Return the name of the column of their time."""
        return TIME

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns that the parts repeat."""
        return (_PART_TIME,)

    @property
    def width(self) -> int:
        """Return the number of columns of a row."""
        return len(self.column_names)

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """Return the names of all columns."""
        with self._open() as file:
            return tuple(file.schema_arrow.names)

    def fingerprint(self) -> str:
        """Return a hash of the rows."""
        return self.stored.digest

    def count(self) -> int:
        """Return the number of rows; their times and request fields were checked before."""
        with self._open() as file:
            return int(file.metadata.num_rows)

    def read(self, rows: int) -> Iterator[EntityFileRows]:
        """Yield all rows in order, exactly ``rows`` at a time."""
        with self._open() as file:
            for table in regroup(file.iter_batches(_BATCH_ROWS), rows):
                yield EntityFileRows(
                    own=pa.table({_PART_TIME: table[TIME]}),
                    keys=entity_rows(self.plan, table),
                    request=request_arrays(self.plan.request, table),
                )

    def read_column(self, name: str) -> pa.ChunkedArray:
        """Return a column."""
        with self._open() as file:
            return file.read([name])[name]

    def take(self, rows: npt.NDArray[np.intp]) -> pa.Table:
        """Return keys and times of some rows, by their ascending numbers."""
        parts, offset = [], 0
        with self._open() as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                selected = rows[(rows >= offset) & (rows < offset + batch.num_rows)] - offset
                keys = entity_rows(self.plan, pa.Table.from_batches([batch]))
                parts.append(keys.take(int64_array(selected)))
                offset += batch.num_rows
        return pa.concat_tables(parts)

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.storage.local_path(self.stored))


class UsableRows:
    """Iterates over the usable rows of a label table, in the order of their times, and counts rows by their use.

    Args:
        tables: all rows, in that order.

    Attributes:
        counts: as of ``Dataset``; complete after the last table.
    """

    def __init__(self, plan: FeaturePlan, tables: Iterable[pa.Table], now_us: int) -> None:
        self.counts: dict[str, int] = {}
        self._plan, self._tables, self._now_us = plan, tables, now_us

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield the usable rows of each table, maybe none."""
        contradicting, pending = 0, None
        for table in self._tables:
            rows, counts = select_usable(self._plan, table, self._now_us)
            self.counts = {name: self.counts.get(name, 0) + count for name, count in counts.items()}
            yield rows
            # Contradicting rows have equal times, so rows before the last time are complete.
            pending = rows if pending is None else pa.concat_tables([pending, rows])
            if pending.num_rows:
                t = pending[TIME].to_numpy()
                complete = int(np.searchsorted(t, t[-1]))
                contradicting += count_contradictions(pending.slice(0, complete))
                pending = pending.slice(complete)
        if pending is not None:
            contradicting += count_contradictions(pending)
        self.counts["contradicting"] = contradicting
