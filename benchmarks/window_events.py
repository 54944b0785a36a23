"""Made-up events with skewed keys (a few very hot), the project that aggregates them, and who asks when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.columns import Column, FeatureRef
from skewless.contract.dtypes import DType
from skewless.contract.plan import BUCKETS, FeaturePlan, Service
from skewless.contract.windows.hops import DAY, HOUR, default_hop
from skewless.contract.windows.view import Aggregate, EventSource, Function, WindowView
from skewless.infra.log.bucket_order import BucketOrder
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import EVENT, KNOWN_AT, event_schema
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState

START_US = 1_735_689_600_000_000  # 2025-01-01
SCALE = 2
ADDED = (Function.COUNT, Function.SUM, Function.MEAN)
ALL = (*ADDED, Function.MAX)
WINDOWS = (HOUR, DAY, 7 * DAY)
_CHUNK = 1_000_000
_SKEW = 1.05
_PARTITION = "events/events/made/0"


def source(keys: Sequence[str] = ("key",)) -> EventSource:
    """Return the source: events of keys and an amount with two decimals."""
    return EventSource(
        name="events",
        kind="push",
        event_column="ts",
        columns=(*(Column(name=key, dtype=DType.INT64) for key in keys), Column(name="amount", dtype=DType.FLOAT64)),
        earliest_us=0,
        latest_us=2**62,
    )


def view(
    functions: Sequence[Function] = ALL, *, key: str = "key", windows: Sequence[int] = WINDOWS, name: str = "live"
) -> WindowView:
    """Return a view of some functions of the amount over some windows."""
    return WindowView(
        name=name,
        keys=(Column(name=key, dtype=DType.INT64),),
        source="events",
        event_column="ts",
        inputs=(Column(name="amount", dtype=DType.FLOAT64),),
        aggregates=tuple(
            Aggregate(
                name=f"{function}_{window // HOUR}h",
                column="amount",
                function=function,
                window_us=window,
                hop_us=default_hop(window),
            )
            for window in windows
            for function in functions
        ),
        scales={"amount": SCALE},
    )


def plan_of(views: Sequence[WindowView], keys: Sequence[str]) -> FeaturePlan:
    """Return the plan of some views, with one service of all their features."""
    refs = tuple(FeatureRef(group=each.name, name=item.name) for each in views for item in each.aggregates)
    return FeaturePlan(
        project="bench",
        views=(),
        request=(),
        transforms=(),
        services=(Service(name="all", features=refs),),
        windows=tuple(views),
        sources=(source(keys),),
    )


@dataclass(frozen=True, kw_only=True)
class Events:
    """So many events of so many keys, over so many days, in order of time."""

    n: int
    n_keys: int
    days: int = 30

    def chunks(self) -> Iterator[pa.Table]:
        """Yield key, ts (microseconds), amount."""
        rng = np.random.default_rng(11)
        for first in range(0, self.n, _CHUNK):
            size = min(_CHUNK, self.n - first)
            edges = [START_US + place * self.days * DAY // self.n for place in (first, first + size)]
            yield pa.table(
                {
                    "key": _skewed(rng, self.n_keys, size),
                    "ts": np.sort(rng.integers(edges[0], edges[1], size)),
                    "amount": np.round(rng.gamma(2.0, 40.0, size), SCALE),
                }
            )

    def write(self, folder: Path) -> None:
        """Write the events as one Parquet file, for those who work by hand, and as a log."""
        log = PartitionLog(ProjectState(folder), _PARTITION)
        writer: pq.ParquetWriter | None = None
        for table in self.chunks():
            writer = writer or pq.ParquetWriter(folder / "events.parquet", table.schema)
            writer.write_table(table)
            log.append(_logged(table))
        if writer is not None:
            writer.close()

    def sort_log(self, folder: Path, own: WindowView) -> None:
        """Sort the log by the buckets of a view's keys, as compaction does when all events have been applied."""
        log = PartitionLog(ProjectState(folder), _PARTITION)
        log.record_end(0, log.next_seq() - 1, START_US + self.days * DAY)
        compact(log, keep=0, order=BucketOrder(keys=own.keys, buckets=BUCKETS))

    def files(self, folder: Path) -> list[str]:
        """Return the files of the log."""
        return PartitionLog(ProjectState(folder), _PARTITION).files()

    def asked(self, n: int) -> pa.Table:
        """Return n entity rows: row, key, t (whole milliseconds), in the last two thirds of the time."""
        rng = np.random.default_rng(12)
        span = np.array([self.days // 3, self.days]) * DAY + START_US
        t = rng.integers(span[0], span[1], n) // 1_000 * 1_000
        return pa.table({"row": np.arange(n), "key": _skewed(rng, self.n_keys, n), "t": t})


def _skewed(rng: np.random.Generator, n_keys: int, size: int) -> np.ndarray:
    return np.asarray(rng.zipf(_SKEW, size) % n_keys, dtype=np.int64)


def _logged(table: pa.Table) -> pa.Table:
    """Return events as the log has them, known when they happened."""
    columns = {"key": table["key"], "amount": table["amount"], EVENT: table["ts"], "__ingest_ts": table["ts"]}
    schema = event_schema(source())
    filled = [columns.get(field.name, pa.nulls(table.num_rows, field.type)) for field in schema]
    return pa.table(filled, schema=schema).append_column(KNOWN_AT, table["ts"])
