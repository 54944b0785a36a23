"""The outcome log: a file per batch of outcomes, the valid outcome of each subject, and counts of duplicates."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from skewless.contract.feedback import Outcome
from skewless.contract.plain_record import PlainRecord
from skewless.infra.log.compaction import compact
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.reading import translate_query_errors
from skewless.infra.log.spool import Spool
from skewless.infra.platform.storage.project_state import ProjectState

if TYPE_CHECKING:
    import duckdb

OUTCOMES = "outcomes"  # name of the log
SCHEMA = pa.schema(
    [
        ("received_at", pa.int64()),
        ("batch", pa.string()),  # batch and row identify an outcome, however often files are merged
        ("row", pa.int32()),
        ("source", pa.string()),
        ("prediction_id", pa.string()),
        ("model", pa.string()),
        ("keys", pa.string()),
        ("event_time", pa.int64()),
        ("label", pa.float64()),
        ("value", pa.float64()),
        ("known_at", pa.int64()),
    ]
)


class OutcomeWriter:
    """Appends to the outcome log of a project; several processes may append at the same time.

    Args:
        spool: of the log, on the local disk; no other object writes into it.
        on_stored: called after each batch; by default it waits until the batch is in the log.
    """

    def __init__(self, spool: Spool, on_stored: Callable[[], object] | None = None) -> None:
        self._spool = spool
        self._on_stored = on_stored or spool.ship

    def append(self, outcomes: Sequence[Outcome], *, received_at: int, source: str) -> str:
        """Write outcomes and wait until they are durable; return the name of their batch.

        Args:
            outcomes: at least one.
            received_at: the clock, UTC microseconds.
            source: their origin: ``http``, or the name of a file.

        Raises:
            StoreError: the disk refused the write, and the log is unchanged; or ``on_stored`` failed, and the outcomes
                are on the disk, from where they are shipped later.
        """
        batch = self._spool.next_name
        self._spool.store(received_at, to_table(outcomes, received_at=received_at, batch=batch, source=source))
        self._on_stored()
        return batch


def outcome_spool(state: ProjectState) -> Spool:
    """Return where the processes of this machine write outcomes."""
    return Spool(state, OUTCOMES, SCHEMA, {"compression": "zstd"})


def to_table(outcomes: Sequence[Outcome], *, received_at: int, batch: str, source: str) -> pa.Table:
    """Return outcomes in the log's schema."""
    shared = {"received_at": received_at, "batch": batch, "source": source}
    rows = [vars(outcome) | shared | {"row": row, "keys": keys_text(outcome)} for row, outcome in enumerate(outcomes)]
    return pa.Table.from_pylist(rows, SCHEMA)


def keys_text(outcome: Outcome) -> str | None:
    """Return the keys as the log stores them: a JSON object of texts, in order of their names."""
    if outcome.prediction_id is not None:
        return None
    return json.dumps(dict(outcome.keys), ensure_ascii=False, separators=(",", ":"))


# The outcome with the latest known time counts, then the last received. Batch and row decide between outcomes that
# were received in the same microsecond.
ORDER = "known_at, received_at, batch, row"
_SUBJECT = "prediction_id, model, keys, event_time"
_OUTCOMES_SQL = "SELECT * FROM read_parquet($files) WHERE known_at <= $known_by"
# The outcomes of some predictions, or by entities at some times: all outcomes of a subject, so that they can be ranked.
_SOME_SQL = f"""
    {_OUTCOMES_SQL} AND list_contains($ids, prediction_id)
    UNION ALL
    {_OUTCOMES_SQL} AND prediction_id IS NULL AND event_time >= $since AND event_time <= $until
"""
_RANKED_SQL = """
    SELECT *,
        label IS NOT DISTINCT FROM lag(label) OVER subject AS keeps_label,
        row_number() OVER subject AS place,
        row_number() OVER latest AS from_end,
        (label, value) IS NOT DISTINCT FROM (lag(label) OVER subject, lag(value) OVER subject) AS repeats,
        known_at = lag(known_at) OVER subject AS at_once,
        known_at < max(known_at) OVER earlier AS late,
        bool_or(label IS NOT NULL) OVER (PARTITION BY {subject}) AS had_label
    FROM ({outcomes})
    WINDOW
        subject AS (PARTITION BY {subject} ORDER BY {order}),
        latest AS (PARTITION BY {subject} ORDER BY known_at DESC, received_at DESC, batch DESC, row DESC),
        earlier AS (
            PARTITION BY {subject} ORDER BY received_at, batch, row
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        )
"""


# When the valid label of each subject was known first: a repeat of a label does not make it younger.
_FIRST_SQL = f"""
    SELECT *, min(known_at) OVER same AS first_known, min(greatest(known_at, received_at)) OVER same AS first_arrived
    FROM (
        SELECT *, count(*) FILTER (NOT keeps_label) OVER (PARTITION BY {_SUBJECT} ORDER BY place) AS run
        FROM ({{ranked}})
    )
    WINDOW same AS (PARTITION BY {_SUBJECT}, run)
"""
_LATEST = pa.schema([*SCHEMA, ("had_label", pa.bool_()), ("first_known", pa.int64()), ("first_arrived", pa.int64())])


@dataclass(frozen=True, kw_only=True)
class OutcomeSubjects:
    """Some subjects of outcomes.

    Args:
        ids: predictions.
        since_us, until_us: entities with an event time between these, both included.
    """

    ids: Sequence[str]
    since_us: int
    until_us: int


def _rank(outcomes: str) -> str:
    """Return the SQL that ranks the outcomes of each subject."""
    return _RANKED_SQL.format(outcomes=outcomes, subject=_SUBJECT, order=ORDER)


@dataclass(frozen=True)
class OutcomeCounts(PlainRecord):
    """Counts of outcomes. Each outcome after the first of its subject is in one class, and also in ``late`` if it was.

    Args:
        rows: all outcomes.
        subjects: predictions, or entities at a time, that have outcomes.
        duplicates: outcomes equal to the previous outcome.
        corrections: outcomes that differ from the previous outcome and became known later.
        contradictions: outcomes that differ from the previous outcome and became known at the same time.
        retractions: outcomes that withdraw the previous outcome.
        late: outcomes that were received after an outcome with a later known time.
    """

    rows: int = 0
    subjects: int = 0
    duplicates: int = 0
    corrections: int = 0
    contradictions: int = 0
    retractions: int = 0
    late: int = 0


_COUNTS_SQL = f"""
    SELECT
        count(*),
        count(*) FILTER (place = 1),
        count(*) FILTER (place > 1 AND repeats),
        count(*) FILTER (place > 1 AND NOT repeats AND NOT at_once AND NOT is_retraction),
        count(*) FILTER (place > 1 AND NOT repeats AND at_once AND NOT is_retraction),
        count(*) FILTER (place > 1 AND NOT repeats AND is_retraction),
        count(*) FILTER (late)
    FROM (SELECT *, label IS NULL AND value IS NULL AS is_retraction FROM ({_rank(_OUTCOMES_SQL)}))
"""


def open_outcome_log(state: ProjectState) -> PartitionLog:
    """Return the outcome log; what this machine has written is in it.

    Raises:
        StoreError: the database or the storage is unavailable.
    """
    outcome_spool(state).ship()
    return PartitionLog(state, OUTCOMES)


def compact_outcomes(state: ProjectState, *, dry_run: bool = False) -> int:
    """Merge small segments; return how many were merged.

    Raises:
        StoreError: the storage failed, or a file is missing or altered; nothing is lost.
    """
    return compact(open_outcome_log(state), keep=0, group=lambda _: OUTCOMES, dry_run=dry_run).merged


class OutcomeLog:
    """A snapshot of a project's outcome log at the time of its opening.

    Raises:
        StoreError: a file is missing, truncated or altered.
    """

    def __init__(self, state: ProjectState, connection: duckdb.DuckDBPyConnection) -> None:
        self._files = open_outcome_log(state).files()
        self._connection = connection

    def latest(
        self, known_by_us: int, subjects: OutcomeSubjects | None = None, arrived_by_us: int | None = None
    ) -> pa.Table:
        """Return the valid outcome of each subject, retractions included, in order of subjects.

        Args:
            known_by_us: outcomes that became known later are ignored.
            subjects: only these; None: all.
            arrived_by_us: outcomes that were received later are ignored; None: none are.

        Returns:
            The log's schema; ``had_label``: whether an outcome of the subject, this one or an earlier one, has a label;
            ``first_known`` and ``first_arrived``: when the valid label was known first without a change since, by its
            sender and by this log. They are null without ``arrived_by_us``.

        Raises:
            StoreError: a file is corrupt.
        """
        names = ", ".join(SCHEMA.names)
        values: dict[str, Any] = {}
        if subjects is not None:
            values = {"ids": list(subjects.ids), "since": subjects.since_us, "until": subjects.until_us}
        source, times = _OUTCOMES_SQL if subjects is None else _SOME_SQL, "NULL AS first_known, NULL AS first_arrived"
        if arrived_by_us is not None:
            source, times = f"FROM ({source}) WHERE received_at <= $arrived_by", "first_known, first_arrived"
            values["arrived_by"] = arrived_by_us
        ranked = _rank(source) if arrived_by_us is None else _FIRST_SQL.format(ranked=_rank(source))
        query = f"SELECT {names}, had_label, {times} FROM ({ranked}) WHERE from_end = 1 ORDER BY {_SUBJECT}"
        outcomes = self._run(query, known_by_us, values)
        if outcomes is None:
            return pa.Table.from_batches([], _LATEST)  # `empty_table` imports pandas
        return outcomes.to_arrow_table().cast(_LATEST)

    def counts(self, known_by_us: int) -> OutcomeCounts:
        """Return counts of the outcomes that were known by a time, by class."""
        relation = self._run(_COUNTS_SQL, known_by_us)
        return OutcomeCounts() if relation is None else OutcomeCounts(*relation.fetchall()[0])

    def _run(
        self, query: str, known_by_us: int, values: Mapping[str, Any] | None = None
    ) -> duckdb.DuckDBPyRelation | None:
        if not self._files:
            return None
        with translate_query_errors("outcome log"):
            return self._connection.sql(query, params={"files": self._files, "known_by": known_by_us, **(values or {})})
