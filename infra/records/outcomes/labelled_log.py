"""Joins logged predictions with their outcomes and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array, numbers
from skewless.contract.columns import Column
from skewless.contract.plain_record import PlainRecord
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.infra.log.reading import translate_query_errors
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.labels import KNOWN, LABEL, WEIGHT, read_labels, table_spec, to_milliseconds
from skewless.infra.reads.offline.sql import quote
from skewless.infra.records.outcomes.log import OutcomeLog, OutcomeSubjects
from skewless.infra.records.predictions.input_sql import json_field_sql, key_sql, number_sql
from skewless.infra.records.predictions.segments import ROWS_SQL, SCHEMA, prediction_files

_MICROSECOND = timedelta(microseconds=1)
_MILLISECOND_US = 1_000
_OWN_SQL = "SELECT *, 1.0 AS weight FROM outcomes WHERE prediction_id IS NOT NULL AND (model IS NULL OR model = $model)"
_TIMES = ("known_at", "received_at", "first_known", "first_arrived")
_OUTCOME_COLUMNS = ("label", "value", "had_label", "weight", *_TIMES, "batch", "row")
TABLE_BATCH = ""  # instead of a batch of the outcome log, of outcomes that are rows of the label table
# The unit that a rollout assigns to an arm: the values of its sticky keys, or one prediction from a full vector.
_UNIT_SQL = "hash(CASE WHEN source = 'entities' THEN {key} ELSE id END)"
_PREDICTIONS_SQL = f"""
    CREATE TEMP TABLE predictions AS
    SELECT row_number() OVER (ORDER BY t, id, version, role) AS n, * FROM (
        SELECT
            id, t, version, role, policy, propensity, score, scores, inputs, source = 'entities' AS has_keys,
            {{unit}} AS unit
        FROM {ROWS_SQL}
        WHERE model = $model AND t >= $since AND t < $until
    )
"""
_BY_ID_SQL = f"""
    CREATE TEMP TABLE candidates AS
    SELECT n, NULL::BIGINT AS distance, {", ".join(_OUTCOME_COLUMNS)} FROM predictions
    JOIN outcomes ON id = prediction_id
"""
# The nearest prediction of each version in each role, before or after; predictions of the same time share the label.
_BY_ENTITY_SQL = f"""
    INSERT INTO candidates
    WITH
    keyed AS (SELECT *, {{key}} AS key FROM predictions WHERE has_keys),
    times AS (SELECT DISTINCT key, version, role, t FROM keyed),
    targets AS (SELECT * FROM entity_outcomes, (SELECT DISTINCT version, role FROM keyed)),
    near AS (
        SELECT targets.*, times.t FROM targets ASOF JOIN times
        ON targets.key = times.key AND targets.version = times.version AND targets.role = times.role
        AND targets.event_t >= times.t
        UNION ALL
        SELECT targets.*, times.t FROM targets ASOF JOIN times
        ON targets.key = times.key AND targets.version = times.version AND targets.role = times.role
        AND targets.event_t < times.t
    ),
    nearest AS (
        SELECT *, abs(t - event_t) AS distance FROM near WHERE abs(t - event_t) <= $tolerance
        QUALIFY row_number() OVER (PARTITION BY batch, row, version, role ORDER BY distance, t) = 1
    )
    SELECT n, distance, {", ".join(_OUTCOME_COLUMNS)} FROM nearest JOIN keyed USING (key, version, role, t)
"""
# If several events are near one prediction, the nearest counts; of several outcomes of it, the last known. One without
# a label retracts the labels of the others; a value alone says nothing about a label that nobody has sent.
BEST_SQL = """
    WITH
    placed AS (SELECT *, coalesce(distance, min(distance) OVER (PARTITION BY n), 0) AS far FROM candidates),
    best AS (
        SELECT *, label IS NULL AND (value IS NULL OR bool_or(had_label) OVER (PARTITION BY n, far)) AS is_retracted
        FROM placed QUALIFY row_number() OVER (
            PARTITION BY n ORDER BY far, known_at DESC, received_at DESC, batch DESC, row DESC
        ) = 1
    )
"""
_FOUND_SQL = f"""
    {BEST_SQL} SELECT id, version, role, label, value, known_at FROM predictions JOIN best USING (n) ORDER BY n
"""
_LABELS_SQL = f"{BEST_SQL} SELECT label FROM best WHERE label IS NOT NULL"
_LABELLED_SQL = f"""
    {BEST_SQL}
    SELECT id, t, version, role, policy, score, scores, label, value, known_at, unit, propensity
    FROM predictions LEFT JOIN best USING (n) ORDER BY n
"""


@dataclass(frozen=True, kw_only=True)
class FoundOutcome(PlainRecord):
    """The outcome of one prediction.

    Args:
        id, version, role: of the prediction.
        label: None: only the value is known.
        value: business value; None: not known.
        known_at: UTC microseconds.
    """

    id: str
    version: str
    role: str
    label: float | None
    value: float | None
    known_at: int


@dataclass(frozen=True, kw_only=True)
class OutcomeCandidates:
    """Outcomes that may belong to predictions.

    Args:
        by_id: those of one prediction each, which they name in ``prediction_id``.
        by_key: those of entities: the SQL of the key of a prediction, and outcomes with such keys in ``key``.
    """

    by_id: pa.Table
    by_key: Sequence[tuple[str, pa.Table]]


@dataclass(frozen=True, kw_only=True)
class LabelledLog:
    """Joins the prediction log of a model with the outcome log and with its label table.

    Args:
        repo: the project's folder, with the label table.
        state: its state folder, with both logs.
        connection: a DuckDB connection; only a cursor of it is used.
        plan: the part of the plan that the model needs.
        spec: the model.
    """

    repo: Path
    state: ProjectState
    connection: duckdb.DuckDBPyConnection
    plan: FeaturePlan
    spec: ModelSpec

    def read(self, *, since_us: int, until_us: int, known_by_us: int) -> pa.Table:
        """Return the predictions of a time range with their outcomes, in order of time.

        A prediction can have several outcomes: by its id, by its entity, from the label table. The outcome with the
        latest known time counts, then the last received. A label by entity belongs to the nearest prediction of each
        version in each role with the same keys and fields; of two events near one prediction the nearer counts.

        Args:
            since_us: earliest ``t``.
            until_us: end of the range, exclusive.
            known_by_us: outcomes that became known later are ignored.

        Returns:
            ``id``, ``t``, ``version``, ``role`` (``champion`` in files without roles), ``policy``, ``score``,
            ``scores``, ``label``, ``value`` and ``known_at`` (null without an outcome), ``unit``, equal for rows that a
            rollout assigns to an arm together, and ``propensity`` (null without exploration); one row a prediction.

        Raises:
            StoreError: a file of the log is corrupt.
            SourceError: the label table cannot be read.
        """
        files = prediction_files(self.state)
        # A cursor has temporary tables of its own, so that two reads at the same time do not share them.
        with closing(self.connection.cursor()) as cursor:
            if not files:
                return pa.Table.from_batches([], _SCHEMA)  # `empty_table` imports pandas
            with translate_query_errors("prediction log"):
                names = (self.spec.rollout and self.spec.rollout.sticky) or [key.name for key in self.plan.join_keys]
                key = key_sql([json_field_sql("inputs", column) for column in self.columns(names)])
                values = {"files": files, "model": self.spec.name, "since": since_us, "until": until_us}
                cursor.execute(_PREDICTIONS_SQL.format(unit=_UNIT_SQL.format(key=key)), values)
                match_outcomes(cursor, self.outcomes(since_us, until_us, known_by_us), self.tolerance_us)
                return cursor.sql(_LABELLED_SQL).to_arrow_table().cast(_SCHEMA)

    def outcomes(
        self, since_us: int, until_us: int, known_by_us: int, ids: Sequence[str] | None = None
    ) -> OutcomeCandidates:
        """Return all outcomes that may belong to predictions of a time range.

        Args:
            since_us, until_us: the range, the end exclusive.
            known_by_us: outcomes that became known later are ignored.
            ids: the ids of the predictions; None: they are not known.

        Raises:
            StoreError: a file of the log is corrupt.
            SourceError: the label table cannot be read.
        """
        subjects = None
        if ids is not None:
            # The time of an entity's outcome, less the horizon, is at most a tolerance from its prediction.
            horizon, around = self.spec.horizon // _MICROSECOND, self.tolerance_us + _MILLISECOND_US
            first, last = since_us + horizon - around, until_us + horizon + around
            subjects = OutcomeSubjects(ids=ids, since_us=first, until_us=last)
        with closing(self.connection.cursor()) as cursor:
            latest = OutcomeLog(self.state, cursor).latest(known_by_us, subjects)
            # A label belongs to the nearest prediction, which may be a tolerance away from the label's own time.
            table = self.read_table(cursor, (since_us - self.tolerance_us, until_us + self.tolerance_us))
            return self.candidates(cursor, latest, table, known_by_us)

    def candidates(
        self, cursor: duckdb.DuckDBPyConnection, latest: pa.Table, table: pa.Table | None, known_by_us: int
    ) -> OutcomeCandidates:
        """Return outcomes in the form in which they are matched with predictions.

        Args:
            cursor: of a connection; its table ``outcomes`` is replaced.
            latest: of the outcome log, see ``OutcomeLog.latest``.
            table: rows of ``read_table``.
            known_by_us: labels of the table that became known later are ignored.
        """
        cursor.register("outcomes", latest)
        by_id = cursor.sql(_OWN_SQL, params={"model": self.spec.name}).to_arrow_table()
        tables = list(self._entity_outcomes(cursor))
        if table is not None:
            tables.append(self._table_labels(cursor, table, known_by_us))
        by_key = [
            (key_sql([json_field_sql("inputs", column) for column in self.columns(names)]), outcomes)
            for names, outcomes in tables
        ]
        return OutcomeCandidates(by_id=by_id, by_key=[(key, rows) for key, rows in by_key if rows.num_rows])

    def read_table(self, cursor: duckdb.DuckDBPyConnection, between: tuple[int, int] | None = None) -> pa.Table | None:
        """Return the rows of the label table, as ``read_labels``, with their number in ``row``; None: there is none.

        Raises:
            SourceError: the label table cannot be read.
        """
        spec = table_spec(self.spec)
        if spec is None:
            return None
        rows = read_labels(cursor, self.repo, self.plan, spec, between=between)
        return rows.append_column("row", int64_array(np.arange(rows.num_rows)).cast(pa.int32()))

    def match(self, outcomes: OutcomeCandidates, predictions: pa.Table) -> npt.NDArray[np.float64]:
        """Return the known labels of predictions, in any order; as ``read``, but of these predictions alone.

        Args:
            outcomes: see ``outcomes``.
            predictions: ``id``, ``t``, ``version``, ``role``, ``inputs`` and ``has_keys``. Predictions that cannot have
                an outcome may be missing (``ServedScores.with_outcome``).
        """
        if not predictions.num_rows:
            return np.empty(0)
        labels: npt.NDArray[np.float64] = numbers(self._match_given(outcomes, predictions, _LABELS_SQL)["label"])
        return labels

    def find_outcomes(self, predictions: pa.Table, known_by_us: int) -> list[FoundOutcome]:
        """Return the outcomes of some predictions, in any order; as ``read``, but of these predictions alone.

        Args:
            predictions: at least one; columns as for ``match``. A prediction of the same entity that is nearer to an
                outcome must be among them.
            known_by_us: outcomes that became known later are ignored.

        Raises:
            StoreError: a file of the log is corrupt.
            SourceError: the label table cannot be read.
        """
        times = numbers(predictions["t"])
        ids: list[str] = predictions["id"].to_pylist()
        outcomes = self.outcomes(int(times.min()), int(times.max()) + 1, known_by_us, ids)
        rows = self._match_given(outcomes, predictions, _FOUND_SQL).to_pylist()
        return [FoundOutcome(**row) for row in rows if row["known_at"] is not None]

    def _match_given(self, outcomes: OutcomeCandidates, predictions: pa.Table, query: str) -> pa.Table:
        with closing(self.connection.cursor()) as cursor, translate_query_errors("prediction log"):
            cursor.register("given", predictions)
            cursor.execute("CREATE TEMP TABLE predictions AS SELECT row_number() OVER () AS n, * FROM given")
            match_outcomes(cursor, outcomes, self.tolerance_us)
            return cursor.sql(query).to_arrow_table()

    @property
    def tolerance_us(self) -> int:
        """Return the tolerance of the labels, microseconds."""
        return self.spec.labels.tolerance // _MICROSECOND

    def _entity_outcomes(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Sequence[str], pa.Table]]:
        """Yield the outcomes by entity, for each set of key names that callers used."""
        event_t = to_milliseconds(f"event_time - {self.spec.horizon // _MICROSECOND}")
        own = "FROM (SELECT *, 1.0 AS weight FROM outcomes) WHERE model = $model AND prediction_id IS NULL"
        query = f"SELECT DISTINCT json_keys(keys) {own} ORDER BY ALL"
        for (names,) in cursor.execute(query, {"model": self.spec.name}).fetchall():
            columns = self.columns(names)
            if len(columns) < len(names):
                continue  # it names a field that the model no longer has
            key = key_sql([json_field_sql("keys", column) for column in columns])
            select = f"SELECT {key} AS key, {event_t} AS event_t, * {own} AND json_keys(keys) = $names"
            yield names, cursor.sql(select, params={"model": self.spec.name, "names": names}).to_arrow_table()

    def _table_labels(
        self, cursor: duckdb.DuckDBPyConnection, rows: pa.Table, known_by_us: int
    ) -> tuple[Sequence[str], pa.Table]:
        cursor.register("label_table", rows)
        columns = self.columns()
        key = key_sql([number_sql(quote(column.name), column) for column in columns])
        query = (
            f"SELECT {key} AS key, {TIME} AS event_t, {LABEL} AS label, NULL::DOUBLE AS value, "
            f" true AS had_label, {WEIGHT} AS weight, {', '.join(f'{KNOWN} AS {name}' for name in _TIMES)},"
            f" '{TABLE_BATCH}' AS batch, row FROM label_table"
            f" WHERE {LABEL} IS NOT NULL AND {KNOWN} <= {known_by_us:d}"
        )
        return [column.name for column in columns], cursor.sql(query).to_arrow_table()

    def columns(self, names: Sequence[str] | None = None) -> list[Column]:
        """Return the keys and request fields in order of their names; if names are given, only these."""
        columns = sorted((*self.plan.join_keys, *self.plan.request), key=lambda column: column.name)
        return [column for column in columns if names is None or column.name in names]


def match_outcomes(cursor: duckdb.DuckDBPyConnection, outcomes: OutcomeCandidates, tolerance_us: int) -> None:
    """Create the table of the outcomes of ``predictions``."""
    cursor.register("outcomes", outcomes.by_id)
    cursor.execute(_BY_ID_SQL)
    for key, table in outcomes.by_key:
        cursor.register("entity_outcomes", table)
        cursor.execute(_BY_ENTITY_SQL.format(key=key), {"tolerance": tolerance_us})
        cursor.unregister("entity_outcomes")


_SCHEMA = pa.schema(
    [
        *map(SCHEMA.field, ("id", "t", "version", "role", "policy", "score", "scores")),
        ("label", pa.float64()),
        ("value", pa.float64()),
        ("known_at", pa.int64()),
        ("unit", pa.uint64()),
        SCHEMA.field("propensity"),
    ]
)
