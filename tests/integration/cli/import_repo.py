"""A windowed project whose history is a folder of files, and what an import makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.infra.log.catalog import log_partitions
from skewless.infra.log.log_columns import REJECT
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from tests.worlds.command_line import done, fingerprint
from tests.worlds.edits import edit
from tests.worlds.windowed import CARRIERS, COLUMNS, MINUTE, NOW, STAMP, write_repo

_PATH = 'path="data/landings.parquet"'


def write_folder_repo(repo: Path) -> Path:
    """Write and apply the project."""
    write_repo(repo)
    (repo / "data/landings").mkdir()
    (repo / "data/landings.parquet").rename(repo / "data/landings/a.parquet")
    edit(repo, _PATH, _PATH.replace(".parquet", ""))
    done("apply", "--repo", repo)
    return repo


def give_ids(repo: Path) -> Path:
    """Give each event of the history an id."""
    edit(repo, COLUMNS, f'"skewless.event_id": "landing", {COLUMNS}, landing string')
    path = repo / "data/landings/a.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.append_column("landing", pa.array([f"h{i}" for i in range(rows.num_rows)])), path)
    done("apply", "--repo", repo)
    return repo


def imported(repo: Path) -> dict[str, Any]:
    """Import, after a dry run that must have changed nothing and foretold the same."""
    log = repo / ".skewless/log"  # its neighbour, the private server, writes when it likes
    before = fingerprint(log)
    foreseen = done("import", "--dry-run", "--repo", repo)["files"]
    assert fingerprint(log) == before, "a dry run has changed the log"
    (source,) = done("import", "--repo", repo)["sources"]
    for name in ("accepted", "rejected", "duplicates", "present"):
        assert sum(file[name] for file in foreseen) == source[name], name
    return dict(source)


def logged(repo: Path, column: str = "arr_delay") -> list[Any]:
    """Return the accepted rows' values of a column, partition by partition."""
    state = ProjectState(repo / ".skewless")
    return [
        row[column]
        for name in log_partitions(state, "landings")
        for rows in PartitionLog(state, name).read(columns=[column, REJECT])
        for row in rows.to_pylist()
        if row[REJECT] is None
    ]


def landings(n: int, *, first: int = 0, written: int = NOW) -> pa.Table:
    """Return landings of the last minutes before noon."""
    at = [NOW - 10 * MINUTE + i for i in range(first, first + n)]
    return pa.table(
        {
            "carrier": [CARRIERS[i % 3] for i in range(n)],
            "arr_delay": [1_000.0 + i for i in range(first, first + n)],
            "landed_at": pa.array(at, pa.int64()).cast(STAMP),
            "written": pa.array([written] * n, pa.int64()).cast(STAMP),
        }
    )
