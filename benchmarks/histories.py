"""Histories and entity rows of any size for joins: source files, an accepted log of the same rows, repos over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.programs import run_feast, run_skewless
from benchmarks.repo import START_US, ViewTable, write_repo
from skewless.contract.plan import View
from skewless.infra.log.log_columns import CREATED, EVENT, INGEST, RAW, REJECT, RUN, TOMBSTONE
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.runs import Coverage, RunLedger
from skewless.infra.platform.storage.project_state import ProjectState

ASKED = "asked.parquet"
DAY_US = 86_400_000_000
OFFLINE = "  type: skewless_feast.offline_store.SkewlessOfflineStore\n"
Kind = Literal["skewless", "plugin", "feast"]
_FILE_ROWS = 1_000_000
_PIECE_ROWS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class History:
    """Feature tables and the entity rows that are joined with them.

    Args:
        entity_rows: at random keys (one in fifty unknown) and times, in random order.
        ttl_days: 0: no limit.
    """

    tables: Sequence[ViewTable]
    entity_rows: int
    ttl_days: int = 0

    def write(self, folder: Path) -> None:
        """Write the tables, each as one Parquet file, and the entity rows."""
        folder.mkdir(parents=True, exist_ok=True)
        for table in self.tables:
            chunks = _regrouped(table.chunks())
            first = next(chunks)
            with pq.ParquetWriter(folder / f"{table.name}.parquet", first.schema) as writer:
                for chunk in (first, *chunks):
                    writer.write_table(chunk)
        pq.write_table(self.asked(), folder / ASKED)

    def asked(self) -> pa.Table:
        """Return the entity rows: ``row``, ``entity_id`` and ``event_timestamp``."""
        rng, n = np.random.default_rng(11), self.entity_rows
        hours = max(table.per_entity for table in self.tables)
        keys = max(table.n_entities for table in self.tables)
        end = START_US + hours * 3_600_000_000 + self.ttl_days * DAY_US // 2
        times = rng.integers(START_US, end, n) // 1_000 * 1_000
        return pa.table(
            {
                "row": np.arange(n),
                "entity_id": rng.integers(0, keys + keys // 50 + 1, n),
                "event_timestamp": pa.array(times, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
            }
        )

    def repo(self, folder: Path, data: Path, kind: Kind) -> Path:
        """Write a repo over the files and apply it: with our program, or with Feast for one of its offline stores."""
        write_repo(folder, self.tables, data)
        settings, definitions = folder / "feature_store.yaml", folder / "definitions.py"
        if kind == "plugin":
            settings.write_text(settings.read_text().replace("  type: duckdb\n", OFFLINE))
        if self.ttl_days:
            ttl = f"    ttl=timedelta(days={self.ttl_days}),\n"
            text = definitions.read_text().replace("    source=", f"{ttl}    source=")
            definitions.write_text(f"from datetime import timedelta\n\n{text}")
        if kind == "skewless":
            run_skewless(folder, "apply")
        else:
            run_feast(folder, "apply")
        return folder


def write_log(views: Sequence[View], rows: Mapping[str, Iterable[pa.Table]], state: Path) -> None:
    """Write rows of each view's source to its accepted log, as one bootstrap run.

    Args:
        rows: by view, its rows in pieces.
    """
    ledger = RunLedger(ProjectState(state).database)
    run = ledger.start(START_US)
    covers = {}
    for view in views:
        log = PartitionLog(ProjectState(state), view.partition)
        with log.stage_rows() as staged:
            for piece in rows[view.name]:
                staged.write(_accepted(piece, run))
            log.commit_rows(staged)
        covers[view.partition] = Coverage(first=0, last=log.next_seq() - 1, kind="bootstrap")
    ledger.finish(run, covers, START_US)


def pieces(data: Path, table: ViewTable) -> Iterator[pa.Table]:
    """Yield the rows of a table that was written."""
    for batch in pq.ParquetFile(data / f"{table.name}.parquet").iter_batches(_PIECE_ROWS):
        yield pa.Table.from_batches([batch])


def _accepted(rows: pa.Table, run_id: int) -> pa.Table:
    n = rows.num_rows
    return pa.table(
        {
            **{name: rows[name] for name in rows.column_names if name != "event_time"},
            EVENT: rows["event_time"].cast(pa.int64()),
            CREATED: pa.nulls(n, pa.int64()),
            TOMBSTONE: np.zeros(n, dtype=np.bool_),
            REJECT: pa.nulls(n, pa.string()),
            RAW: pa.nulls(n, pa.string()),
            INGEST: np.zeros(n, dtype=np.int64),
            RUN: np.full(n, run_id, dtype=np.int64),
        }
    )


def _regrouped(chunks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows in larger chunks: one row group each."""
    held: list[pa.Table] = []
    for chunk in chunks:
        held.append(chunk)
        if sum(part.num_rows for part in held) >= _FILE_ROWS:
            yield pa.concat_tables(held).combine_chunks()
            held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()
