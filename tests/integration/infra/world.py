"""A small world for materialisation: sources on disk, a real server, a clock that a test moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from skewless.contract.clock import ManualClock
from skewless.contract.keys import KeyCodec, KeyValue
from skewless.contract.plan import View
from skewless.contract.rows import RowCodec, ViewRead
from skewless.infra.log.accepted import REJECT
from skewless.infra.log.known import KnownRange, known_ranges
from skewless.infra.materialization.materialize import Check, Materializer
from skewless.infra.materialization.run_report import OnStep, ViewReport
from skewless.infra.offline.changes import EventRange
from skewless.infra.offline.engine import connect
from skewless.infra.offline.views import OfflineViews
from skewless.infra.online.redis_store import BlockingReader, RedisWriter

UTC_US = pa.timestamp("us", tz="UTC")
HOUR = 3_600_000_000


def times(*values: int | None) -> pa.Array:
    return pa.array(values, pa.int64()).cast(UTC_US)


@dataclass
class World:
    """One project; ``run`` materialises as a new process would."""

    root: Path
    url: str
    clock: ManualClock = field(default_factory=lambda: ManualClock(100 * HOUR))

    @property
    def project(self) -> str:
        return self.root.name

    @property
    def state(self) -> Path:
        return self.root / "state"

    def write(self, path: str, columns: Mapping[str, Any]) -> Path:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(dict(columns)), place)
        return place

    def connect(self) -> duckdb.DuckDBPyConnection:
        return connect(self.root / "spill", threads=1)

    def writer(self) -> RedisWriter:
        return RedisWriter(self.url)

    def run(
        self,
        *views: View,
        check: Check | None = None,
        events: EventRange | None = None,
        naive_is_utc: bool = False,
        on_step: OnStep | None = None,
        strict: bool = False,
    ) -> list[ViewReport]:
        writer = self.writer()
        try:
            with self.connect() as connection:
                job = replace(self.job(connection, writer), strict=strict)
                return job.run(views, check, events=events, naive_is_utc=naive_is_utc, on_step=on_step)
        finally:
            writer.close()

    def job(self, connection: duckdb.DuckDBPyConnection, writer: RedisWriter) -> Materializer:
        views = OfflineViews(self.state, connection)
        return Materializer(
            project=self.project,
            repo=self.root,
            state=self.state,
            connection=connection,
            online=lambda: writer,
            ledger=views.ledger,
            clock=self.clock,
        )

    def accepted(self, *views: View, check: Check | None = None) -> list[int]:
        return [report.accepted for report in self.run(*views, check=check)]

    def online(self, view: View, *keys: Sequence[KeyValue | None]) -> ViewRead:
        names = [KeyCodec(self.project, view).encode(key) for key in keys]
        reader = BlockingReader(self.url)
        try:
            rows = dict(zip(names, reader.get([name or b"" for name in names]), strict=True))
        finally:
            reader.close()
        return RowCodec(view).decode([None if name is None else rows[name] for name in names])

    def offline(self, view: View, *keys: Sequence[KeyValue | None], t: int | None = None) -> ViewRead:
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
            return OfflineViews(self.state, connection).read_view(view, table, "knowledge")

    def log(self, view: View) -> pa.Table:
        files = sorted((self.state / "log" / view.partition).glob("*.parquet"))
        return pa.concat_tables(pq.read_table(file) for file in files)

    def rejected(self, view: View) -> list[dict[str, Any]]:
        return [row for row in self.log(view).to_pylist() if row[REJECT] is not None]

    def known(self, view: View) -> list[KnownRange]:
        with self.connect() as connection:
            return known_ranges(OfflineViews(self.state, connection).ledger.runs(), view.partition)

    def forget_online(self) -> None:
        """Lose what the server holds of this project."""
        with redis.Redis.from_url(self.url) as client:
            for name in client.scan_iter(f"sk:{self.project}:*"):
                client.delete(name)


def same(left: ViewRead, right: ViewRead) -> bool:
    """Say whether two reads are equal to the last bit."""
    fields = ("event_ts", "created_ts", "seq", "run_id", "tombstone")
    equal = left.found.tolist() == right.found.tolist()
    equal &= all(getattr(left.versions, name).tolist() == getattr(right.versions, name).tolist() for name in fields)
    for name, mask in left.nulls.items():
        equal &= mask.tolist() == right.nulls[name].tolist()
        ours, theirs = left.values[name][~mask], right.values[name][~mask]
        equal &= ours.dtype == theirs.dtype
        equal &= ours.tolist() == theirs.tolist() if ours.dtype == object else ours.tobytes() == theirs.tobytes()
    return bool(equal)
