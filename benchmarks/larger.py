"""A dataset larger than memory: 10 M entity rows joined with 100 M feature rows on disk, under 4 GiB."""

# ruff: noqa: PLC0415 - each contestant loads its own libraries, and nobody else's

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.contestant import Contestant, race
from benchmarks.digest import digest_columns
from benchmarks.histories import ASKED, History, write_log
from benchmarks.meter import Meter
from benchmarks.repo import ViewTable
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.stored import plan_of

# DuckDB's part of the 4 GiB; the rest is for Arrow, numpy and the libraries.
MEMORY_LIMIT = "2GiB"
PROCESS_LIMIT = 4 * 2**30
OWN, HAND = "skewless", "by hand, sampled"
_SAMPLE = 1_000
_TIMEOUT_S = 3_600


def run() -> list[Result]:
    """Write a dataset with the code of ``skewless dataset``; one row in a thousand is checked by hand."""
    keys = scaled(1_000_000, least=50)
    table = ViewTable(name="vast", n_entities=keys, per_entity=100, n_features=4)
    history = History(tables=[table], entity_rows=10 * keys)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(history.asked(), folder / ASKED)
        # A source of the first rows is enough for `apply`: the log is written at once.
        pq.write_table(next(table.chunks()), folder / "vast.parquet")
        repo = history.repo(folder / "repo", folder, "skewless")
        write_log(plan_of(repo).views, {table.name: table.chunks()}, repo / ".skewless")
        common = {"repo": str(repo), "asked": str(folder / ASKED)}
        done = race(
            [
                Contestant(name=OWN, entrant=dataset, arguments=common, timeout_s=_TIMEOUT_S),
                Contestant(name=HAND, entrant=sampled_by_hand, arguments=common, timeout_s=_TIMEOUT_S),
            ],
            rounds=1,
        )
    what = f"larger: {history.entity_rows:,} x {keys * table.per_entity:,} rows, 4 features, to Parquet"
    peak = done.median(OWN, lambda report: report.peak_bytes())
    rate = done.median(OWN, lambda report: history.entity_rows / report.seconds())
    limit = f"the limit of {PROCESS_LIMIT / 1e6:,.0f} MB"
    return [
        Result(name=f"{what}, rate", value=rate, unit="rows/s", against="-", ratio=None),
        Result(
            name=f"{what}, memory", value=peak / 1e6, unit="MB", against=limit, ratio=peak / PROCESS_LIMIT, target=1.0
        ),
    ]


def dataset(meter: Meter, *, repo: str, asked: str) -> str:
    """Write the dataset to Parquet; return the digest of the sampled rows."""
    from skewless import Project

    out = Path(repo).with_name("out")
    with Project(repo, memory_limit=MEMORY_LIMIT) as project:
        _ = project.applied
        with meter.lap():
            project.dataset(Path(asked), "all", out, mode="event_time")
    parts = [_sampled(pq.ParquetFile(path)) for path in sorted(out.glob("part-*.parquet"))]
    table = pa.concat_tables(parts)
    columns = {name.partition("__")[2]: table[name] for name in table.column_names if "__" in name}
    return digest_columns({"row": table["row"], **columns})


def sampled_by_hand(meter: Meter, *, repo: str, asked: str) -> str:
    """Join the sampled rows alone with an ASOF join of their keys' history."""
    import duckdb

    from skewless.infra.log.log_columns import EVENT
    from skewless.infra.log.partition_log import PartitionLog
    from skewless.infra.platform.storage.project_state import ProjectState

    view = plan_of(Path(repo)).views[0]
    files = PartitionLog(ProjectState(Path(repo) / ".skewless"), view.partition).files()
    shown = ", ".join(f"h.{feature.name}" for feature in view.features)
    query = (
        f"SELECT e.row, {shown} FROM asked e ASOF LEFT JOIN (SELECT * FROM read_parquet(?) h SEMI JOIN asked USING"
        f" (entity_id)) h ON e.entity_id = h.entity_id AND epoch_us(e.event_timestamp) >= h.{EVENT} ORDER BY e.row"
    )
    settings: dict[str, Any] = {"memory_limit": MEMORY_LIMIT, "temp_directory": str(Path(repo).with_name("spill"))}
    rows = _sampled(pq.ParquetFile(asked))
    with duckdb.connect(config=settings) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("asked", rows)
        with meter.lap():
            answer = connection.sql(query, params=[files]).to_arrow_table()
    return digest_columns({name: answer[name] for name in answer.column_names})


def _sampled(file: pq.ParquetFile) -> pa.Table:
    """Return one row in a thousand, by the number that each row carries."""
    kept = []
    for batch in file.iter_batches(_SAMPLE * 100):
        numbers = batch["row"].to_numpy()
        kept.append(batch.filter(pa.array(numbers % _SAMPLE == 0)))
    return pa.Table.from_batches(kept, file.schema_arrow)
