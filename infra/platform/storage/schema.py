"""The tables of a project's database, the steps from one version of them to the next, and copies of all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from skewless.infra.platform.storage.row_checksum import RowChecksum

if TYPE_CHECKING:
    from skewless.infra.platform.storage.database import Database, Row

Execute = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]
Step = Sequence[str | Callable[[Execute], None]]
_PAGE_ROWS = 5_000

COVERAGE_SUM = RowChecksum(
    "run_id", "first_position", "last_position", "CASE WHEN kind = 'live' THEN 1 ELSE 0 END", "ended_us"
)
RUN_SUM = RowChecksum("run_id", "started_us", "skew_us", "ended_us", "covered")
SEGMENT_SUM = RowChecksum("first_seq", "last_seq", "at_us", "known_us", "is_merged", "is_proven")
_SUMS = {"materializations": RUN_SUM, "coverage": COVERAGE_SUM, "segments": SEGMENT_SUM}


# Each step is applied once, in this order, in one transaction. A released step never changes: add another one.
# The statements are valid for SQLite and for PostgreSQL. Times are microseconds, bodies are JSON.
STEPS: tuple[Step, ...] = (
    (
        # The current value of a thing, such as the API keys or the stages of a view's states.
        """CREATE TABLE documents (
            kind TEXT NOT NULL, name TEXT NOT NULL, revision BIGINT NOT NULL, body TEXT NOT NULL,
            PRIMARY KEY (kind, name))""",
        # Values that are never changed, such as applied plans or moves of an alias. The number is the fence: of two
        # writers of one number the database accepts one.
        """CREATE TABLE records (
            kind TEXT NOT NULL, name TEXT NOT NULL, number BIGINT NOT NULL, body TEXT NOT NULL,
            PRIMARY KEY (kind, name, number))""",
        # A released lease stays, because its token must never decrease.
        """CREATE TABLE leases (
            name TEXT PRIMARY KEY, holder TEXT NOT NULL, token BIGINT NOT NULL, until_us BIGINT NOT NULL)""",
        """CREATE TABLE materializations (
            run_id BIGINT PRIMARY KEY, started_us BIGINT NOT NULL, skew_us BIGINT NOT NULL, ended_us BIGINT)""",
        "CREATE INDEX finished_materializations ON materializations (run_id) WHERE ended_us IS NOT NULL",
        # The log positions of a partition that a finished run has applied.
        """CREATE TABLE coverage (
            partition TEXT NOT NULL, run_id BIGINT NOT NULL, first_position BIGINT NOT NULL,
            last_position BIGINT NOT NULL, kind TEXT NOT NULL, ended_us BIGINT NOT NULL,
            PRIMARY KEY (partition, run_id))""",
        # With all columns: a project has a row per run and view, which are read from the index alone.
        """CREATE INDEX coverage_by_position ON coverage (
            partition, last_position, first_position, run_id, kind, ended_us)""",
        # A run of a job: the bodies have the rest of its start and of its end.
        """CREATE TABLE job_runs (
            job TEXT NOT NULL, tick_us BIGINT NOT NULL, attempt BIGINT NOT NULL, state TEXT NOT NULL,
            start_body TEXT NOT NULL, end_body TEXT, PRIMARY KEY (job, tick_us, attempt))""",
        "CREATE INDEX job_runs_by_time ON job_runs (tick_us, job, attempt)",
        "CREATE INDEX job_runs_by_state ON job_runs (state, tick_us, job, attempt)",
        "CREATE INDEX job_runs_by_job_and_state ON job_runs (job, state, tick_us, attempt)",
        # The logs. A partition's next position is the fence of its writers; its columns are an Arrow schema in base64.
        """CREATE TABLE log_partitions (
            partition TEXT PRIMARY KEY, next_seq BIGINT NOT NULL, columns TEXT NOT NULL)""",
        # Immutable files of a partition, by position. The end of their application (known_us) is null until then.
        """CREATE TABLE segments (
            partition TEXT NOT NULL, first_seq BIGINT NOT NULL, last_seq BIGINT NOT NULL, object TEXT NOT NULL,
            size BIGINT NOT NULL, stamp TEXT NOT NULL, digest TEXT NOT NULL, at_us BIGINT NOT NULL, known_us BIGINT,
            is_merged BIGINT NOT NULL, is_proven BIGINT NOT NULL, PRIMARY KEY (partition, first_seq))""",
        # Objects that no segment has any more, and the readers that may still use them.
        "CREATE TABLE removed_objects (object TEXT PRIMARY KEY, readers TEXT NOT NULL)",
    ),
    (
        # Checksums of the rows on which the known times of values depend, and how many partitions a run covers.
        "ALTER TABLE materializations ADD COLUMN covered BIGINT NOT NULL DEFAULT 0",
        """UPDATE materializations SET covered = counted.n
            FROM (SELECT run_id AS id, count(*) AS n FROM coverage GROUP BY run_id) AS counted
            WHERE run_id = counted.id""",
        *(
            statement
            for table, checksum in _SUMS.items()
            for statement in (
                f"ALTER TABLE {table} ADD COLUMN checksum BIGINT NOT NULL DEFAULT 0",
                f"UPDATE {table} SET checksum = {checksum.sql}",
            )
        ),
        "DROP INDEX coverage_by_position",
        """CREATE INDEX coverage_by_position ON coverage (
            partition, last_position, first_position, run_id, kind, ended_us, checksum)""",
    ),
)

# The tables with data, and the columns of their primary keys, which are the first ones of each table.
KEYS = {
    "documents": ("kind", "name"),
    "records": ("kind", "name", "number"),
    "leases": ("name",),
    "materializations": ("run_id",),
    "coverage": ("partition", "run_id"),
    "job_runs": ("job", "tick_us", "attempt"),
    "log_partitions": ("partition",),
    "segments": ("partition", "first_seq"),
    "removed_objects": ("object",),
}


def copy_tables(source: Database, target: Database) -> dict[str, int]:
    """Copy all rows of one state of a database into an empty one, in one transaction; return the rows per table.

    Writers of the source do not wait. Memory is bounded by a page of rows.

    Raises:
        StoreError: a database is unavailable; the target is unchanged.
    """
    counts = dict.fromkeys(KEYS, 0)
    with source.snapshot(), target.transaction():
        for table in KEYS:
            for row in _read_rows(source, table):
                target.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)
                counts[table] += 1
    return counts


def count_rows(database: Database) -> dict[str, int]:
    """Return the number of rows per table."""
    return {table: sum(count for (count,) in database.query(f"SELECT count(*) FROM {table}")) for table in KEYS}


def _read_rows(source: Database, table: str) -> Iterator[Row]:
    columns, width = ", ".join(KEYS[table]), len(KEYS[table])
    page = source.query(f"SELECT * FROM {table} ORDER BY {columns} LIMIT {_PAGE_ROWS}")
    after = f"SELECT * FROM {table} WHERE ({columns}) > ({', '.join('?' * width)}) ORDER BY {columns}"
    while page:
        yield from page
        page = source.query(f"{after} LIMIT {_PAGE_ROWS}", *page[-1][:width])
