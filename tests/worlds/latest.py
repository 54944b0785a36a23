"""A project of latest-value views, read from both sides: sources on disk, a clock that a test moves.

The online store lies in memory (``LatestWorld``) or on a real server (``LatestRedisWorld``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from skewless.contract.clock import ManualClock
from skewless.contract.keys import KeyCodec, KeyValue
from skewless.contract.plan import View
from skewless.contract.rows import RowCodec, ViewRead
from skewless.contract.status import Status
from skewless.contract.vector import null_mask, view_status
from skewless.infra.ingest.materialization.materialize import Check, Materializer
from skewless.infra.ingest.materialization.run_report import OnStep, ViewReport
from skewless.infra.log.log_columns import REJECT
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.changes import EventRange
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.join import Order
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.reads.online.port import OnlineWriter
from skewless.infra.reads.online.redis_store import BlockingReader, RedisWriter
from tests.memory_store import MemoryStore
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.ledger_runs import KnownRange, known_ranges, read_runs

UTC_US = pa.timestamp("us", tz="UTC")
HOUR = 3_600_000_000


def times(*values: int | None) -> pa.Array:
    return pa.array(values, pa.int64()).cast(UTC_US)


@contextmanager
def state_folder() -> Iterator[Path]:
    """Yield an empty state folder for one of many examples; its database is closed in the end."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        yield state
        ProjectState(state).database.close()


@dataclass(kw_only=True)
class LatestWorld:
    """One project; ``run`` materialises as a new process would.

    Args:
        opened: the DuckDB connection of every use; None opens one for each.
    """

    root: Path
    clock: ManualClock = field(default_factory=lambda: ManualClock(100 * HOUR))
    opened: duckdb.DuckDBPyConnection | None = None
    memory: MemoryStore = field(default_factory=MemoryStore)
    addresses: ProjectAddresses = field(default_factory=ProjectAddresses)

    @property
    def project(self) -> str:
        return self.root.name

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def project_state(self) -> ProjectState:
        return self.addresses.state(self.state)

    def write(self, path: str, columns: Mapping[str, Any] | pa.Table) -> Path:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(dict(columns)), place)
        return place

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        if self.opened is not None:
            yield self.opened
            return
        with connect(self.root / "spill", threads=1) as connection:
            yield connection

    @contextmanager
    def writer(self) -> Iterator[OnlineWriter]:
        yield self.memory

    def stored(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Return the row that the online store holds under each name."""
        return [self.memory.rows.get(name) for name in names]

    def run(
        self,
        *views: View,
        check: Check | None = None,
        events: EventRange | None = None,
        naive_is_utc: bool = False,
        on_step: OnStep | None = None,
        strict: bool = False,
    ) -> list[ViewReport]:
        with self.opened_job() as job:
            strictly = replace(job, strict=strict)
            return strictly.run(views, check, events=events, naive_is_utc=naive_is_utc, on_step=on_step)

    @contextmanager
    def opened_job(self) -> Iterator[Materializer]:
        with self.writer() as writer, self.connect() as connection:
            yield self.job(connection, writer)

    def job(self, connection: duckdb.DuckDBPyConnection, writer: OnlineWriter) -> Materializer:
        views = OfflineViews(self.project_state, connection)
        return Materializer(
            project=self.project,
            repo=self.root,
            state=self.project_state,
            connection=connection,
            online=lambda: writer,
            ledger=views.ledger,
            clock=self.clock,
        )

    def accepted(self, *views: View, check: Check | None = None) -> list[int]:
        return [report.accepted for report in self.run(*views, check=check)]

    def online(self, view: View, *keys: Sequence[KeyValue | None]) -> ViewRead:
        names = [KeyCodec(self.project, view).encode(key) for key in keys]
        rows = dict(zip(names, self.stored([name or b"" for name in names]), strict=True))
        return RowCodec(view).decode([None if name is None else rows[name] for name in names])

    def offline(
        self, view: View, *keys: Sequence[KeyValue | None], t: int | None = None, order: Order = "knowledge"
    ) -> ViewRead:
        """Return what the log says that stood at a time; None: now."""
        at = self.clock.now_us() if t is None else t
        columns = {column.name: [key[i] for key in keys] for i, column in enumerate(view.keys)}
        kinds = {"string": pa.string(), "int64": pa.int64(), "int32": pa.int32()}
        table = pa.table(
            {
                **{column.name: pa.array(columns[column.name], kinds[column.dtype]) for column in view.keys},
                "__t": pa.array([at] * len(keys), pa.int64()),
            }
        )
        with self.connect() as connection:
            return OfflineViews(self.project_state, connection).read_view(view, table, order)

    def log(self, view: View) -> pa.Table:
        return pa.concat_tables(PartitionLog(self.project_state, view.partition).read())

    def rejected(self, view: View) -> list[dict[str, Any]]:
        return [row for row in self.log(view).to_pylist() if row[REJECT] is not None]

    def known(self, view: View) -> list[KnownRange]:
        return known_ranges(read_runs(self.project_state.database), view.partition)


@dataclass(kw_only=True)
class LatestRedisWorld(LatestWorld):
    """The same with its rows on a real server."""

    url: str

    @contextmanager
    def writer(self) -> Iterator[OnlineWriter]:
        writer = RedisWriter(self.url)
        try:
            yield writer
        finally:
            writer.close()

    def stored(self, names: Sequence[bytes]) -> list[bytes | None]:
        reader = BlockingReader(self.url)
        try:
            return reader.get(names)
        finally:
            reader.close()

    def forget_online(self) -> None:
        """Lose what the server holds of this project."""
        with redis.Redis.from_url(self.url) as client:
            for name in client.scan_iter(f"sk:{self.project}:*"):
                client.delete(name)


def seen(view: View, read: ViewRead, t_us: int) -> list[tuple[str, int | None]]:
    """Return status and ``x`` of each row as a model sees it at a time."""
    status = view_status(read, np.full(len(read.has_row), t_us, dtype=np.int64), view.ttl_us)
    nulls, values = null_mask(read, status, "x").tolist(), read.values["x"].tolist()
    return [
        (Status(one).name, None if null else int(value))
        for one, null, value in zip(status.tolist(), nulls, values, strict=True)
    ]


def same(left: ViewRead, right: ViewRead) -> bool:
    """Say whether two reads are equal to the last bit."""
    fields = ("event_ts", "created_ts", "seq", "run_id", "tombstone")
    equal = left.has_row.tolist() == right.has_row.tolist()
    equal &= all(getattr(left.versions, name).tolist() == getattr(right.versions, name).tolist() for name in fields)
    for name, mask in left.nulls.items():
        equal &= mask.tolist() == right.nulls[name].tolist()
        ours, theirs = left.values[name][~mask], right.values[name][~mask]
        equal &= ours.dtype == theirs.dtype
        equal &= ours.tolist() == theirs.tolist() if ours.dtype == object else ours.tobytes() == theirs.tobytes()
    return bool(equal)
