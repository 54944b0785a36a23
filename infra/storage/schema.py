"""The tables of a project's database, and the steps from one version of them to the next."""

from __future__ import annotations

# Each step is applied once, in this order, in one transaction. A released step never changes: add another one.
# The statements are valid for SQLite and for PostgreSQL. Times are microseconds, bodies are JSON.
STEPS: tuple[tuple[str, ...], ...] = (
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
            run_id BIGINT PRIMARY KEY, started_us BIGINT NOT NULL, skew_us BIGINT NOT NULL, ended_us BIGINT,
            covers TEXT)""",
        # A run of a job: the bodies have the rest of its start and of its end.
        """CREATE TABLE job_runs (
            job TEXT NOT NULL, tick_us BIGINT NOT NULL, attempt BIGINT NOT NULL, state TEXT NOT NULL,
            start_body TEXT NOT NULL, end_body TEXT, PRIMARY KEY (job, tick_us, attempt))""",
        "CREATE INDEX job_runs_by_time ON job_runs (tick_us, job, attempt)",
        "CREATE INDEX job_runs_by_state ON job_runs (state, tick_us, job, attempt)",
        "CREATE INDEX job_runs_by_job_and_state ON job_runs (job, state, tick_us, attempt)",
    ),
    (
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
)

# The tables with data, and the columns of their primary keys, which are the first ones of each table.
KEYS = {
    "documents": ("kind", "name"),
    "records": ("kind", "name", "number"),
    "leases": ("name",),
    "materializations": ("run_id",),
    "job_runs": ("job", "tick_us", "attempt"),
    "log_partitions": ("partition",),
    "segments": ("partition", "first_seq"),
    "removed_objects": ("object",),
}
