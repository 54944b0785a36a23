"""Logged predictions beside what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import StoreError
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.labels import KNOWN, LABEL, query_labels, read_labels, to_milliseconds
from skewless.infra.offline.sql import quote, sql_literal
from skewless.infra.outcomes.log import OutcomeLog
from skewless.infra.predictions.files import FOLDER, log_files

_MICROSECOND = timedelta(microseconds=1)
_SAID_OF = ("label", "value", "known_at", "received_at", "batch", "row")
# What a rollout draws to an arm: the values of its sticky keys, or a whole vector that came without any.
_UNIT = "hash(CASE WHEN coalesce(source, 'entities') = 'entities' THEN {key} ELSE id END)"
_ANSWERS = """
    CREATE TEMP TABLE answers AS
    SELECT row_number() OVER (ORDER BY t, id, version, role) AS n, * FROM (
        SELECT
            id, t, version, coalesce(role, 'champion') AS role, policy, score, scores,
            inputs, coalesce(source, 'entities') = 'entities' AS asked_by_keys, {unit} AS unit
        FROM (
            SELECT * FROM read_parquet($files, union_by_name = true)
            UNION ALL BY NAME
            SELECT NULL::VARCHAR AS role, NULL::BIGINT AS policy, NULL::VARCHAR AS source, NULL::DOUBLE[] AS scores
            WHERE false
        )
        WHERE model = $model AND t >= $since AND t < $until
    )
"""
_CANDIDATES = """
    CREATE TEMP TABLE candidates (
        n BIGINT, distance BIGINT, label DOUBLE, value DOUBLE, known_at BIGINT, received_at BIGINT, batch VARCHAR,
        row INTEGER
    )
"""
_BY_ID = f"""
    INSERT INTO candidates
    SELECT n, NULL, {", ".join(_SAID_OF)} FROM answers JOIN said ON id = prediction_id
"""
# The nearest prediction of each version in each role, before or after; those of the same moment share the label.
_BY_ENTITY = f"""
    INSERT INTO candidates
    WITH
    keyed AS (SELECT *, {{key}} AS key FROM answers WHERE asked_by_keys),
    moments AS (SELECT DISTINCT key, version, role, t FROM keyed),
    wanted AS (SELECT * FROM about, (SELECT DISTINCT version, role FROM keyed)),
    near AS (
        SELECT wanted.*, moments.t FROM wanted ASOF JOIN moments
        ON wanted.key = moments.key AND wanted.version = moments.version AND wanted.role = moments.role
        AND wanted.moment >= moments.t
        UNION ALL
        SELECT wanted.*, moments.t FROM wanted ASOF JOIN moments
        ON wanted.key = moments.key AND wanted.version = moments.version AND wanted.role = moments.role
        AND wanted.moment < moments.t
    ),
    nearest AS (
        SELECT *, abs(t - moment) AS distance FROM near WHERE abs(t - moment) <= $tolerance
        QUALIFY row_number() OVER (PARTITION BY batch, row, version, role ORDER BY distance, t) = 1
    )
    SELECT n, distance, {", ".join(_SAID_OF)} FROM nearest JOIN keyed USING (key, version, role, t)
"""
# Of several events that are near one prediction, the nearest; of what was said of it, what was known last.
_LABELLED = """
    WITH
    placed AS (SELECT *, coalesce(distance, min(distance) OVER (PARTITION BY n), 0) AS far FROM candidates),
    best AS (
        SELECT * FROM placed QUALIFY row_number() OVER (
            PARTITION BY n ORDER BY far, known_at DESC, received_at DESC, batch DESC, row DESC
        ) = 1
    )
    SELECT id, t, version, role, policy, score, scores, label, value, known_at, unit
    FROM answers LEFT JOIN best USING (n) ORDER BY n
"""


@dataclass(frozen=True, kw_only=True)
class LabelledLog:
    """Joins the prediction log of a model with the outcome log and with its label table.

    Args:
        repo: the project's folder, with the label table.
        state: its state folder, with both logs.
        connection: is left as it was.
        plan: the part of the plan that the model needs.
        spec: the model.
    """

    repo: Path
    state: Path
    connection: duckdb.DuckDBPyConnection
    plan: FeaturePlan
    spec: ModelSpec

    def read(self, *, since_us: int, until_us: int, known_by_us: int) -> pa.Table:
        """Return each prediction of a time with its outcome, in order of time.

        Of what was said about a prediction (by its id, by its entity, in the label table) that holds which was known
        last, then what was received last. A label by entity belongs to the nearest prediction of each version in each
        role with the same keys and fields; of two events near one prediction the nearer one counts.

        Args:
            since_us: earliest ``t``.
            until_us: the first ``t`` that is too late.
            known_by_us: what became known later is not looked at.

        Returns:
            ``id``, ``t``, ``version``, ``role`` (``champion`` where the log does not say), ``policy``, ``score``,
            ``scores``, ``label``, ``value`` and ``known_at``, null where there is none, and ``unit``, equal where a
            rollout draws rows to one arm; one row a prediction.

        Raises:
            StoreError: a file of the log is damaged.
            SourceError: the label table is broken.
        """
        files = [str(path) for path in log_files(self.state / FOLDER)]
        with closing(self.connection.cursor()) as cursor:
            if not files:
                return _EMPTY
            try:
                times = {"since": since_us, "until": until_us}
                cursor.execute(_ANSWERS.format(unit=self._unit()), {"files": files, "model": self.spec.name, **times})
                self._find_candidates(cursor, (since_us, until_us), known_by_us)
                return cursor.sql(_LABELLED).to_arrow_table().cast(_EMPTY.schema)
            except duckdb.Error as error:
                raise StoreError(
                    "prediction log", f"cannot be joined: {error}", fix="restore the damaged file"
                ) from error

    def newest_labels(self, known_by_us: int, most: int = 100_000) -> pa.Table:
        """Return ``t`` and ``known_at`` of the newest rows of the label table that were known by a moment.

        Raises:
            SourceError: the label table is broken.
        """
        return self._ask_labels(
            f"SELECT {TIME} AS t, {KNOWN} AS known_at FROM labels WHERE {LABEL} IS NOT NULL"
            f" AND {KNOWN} <= {known_by_us:d} AND {TIME} IS NOT NULL ORDER BY {TIME} DESC, {KNOWN} LIMIT {most:d}"
        )

    def labels_between(self, after_us: int, until_us: int) -> int:
        """Return how many rows of the label table became known after one moment, and until another.

        Raises:
            SourceError: the label table is broken.
        """
        times = f"{KNOWN} > {after_us:d} AND {KNOWN} <= {until_us:d}"
        found = self._ask_labels(f"SELECT count(*) AS n FROM labels WHERE {LABEL} IS NOT NULL AND {times}")
        return int(found["n"][0].as_py())

    def _ask_labels(self, question: str) -> pa.Table:
        return query_labels(self.connection, self.repo, self.plan, self.spec, question)

    def _find_candidates(self, cursor: duckdb.DuckDBPyConnection, times: tuple[int, int], known_by_us: int) -> None:
        cursor.execute(_CANDIDATES)
        cursor.register("said", OutcomeLog(self.state, cursor).standing(known_by_us))
        cursor.execute(_BY_ID)
        for names, about in [*self._feedback(cursor), *self._label_table(cursor, times, known_by_us)]:
            cursor.register("about", about)
            key = _key([(column, _from_json("inputs", column)) for column in self._columns(names)])
            cursor.execute(_BY_ENTITY.format(key=key), {"tolerance": self.spec.labels.tolerance // _MICROSECOND})
            cursor.unregister("about")

    def _feedback(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Sequence[str], pa.Table]]:
        """Yield what was said by entity, for each set of names that was used."""
        moment = to_milliseconds(f"event_time - {self.spec.horizon // _MICROSECOND}")
        used = "SELECT DISTINCT json_keys(keys) FROM said WHERE model = $model ORDER BY ALL"
        for (names,) in cursor.execute(used, {"model": self.spec.name}).fetchall():
            columns = self._columns(names)
            if len(columns) < len(names):
                continue  # a field that the model had once
            key = _key([(column, _from_json("keys", column)) for column in columns])
            query = (
                f"SELECT {key} AS key, {moment} AS moment, {', '.join(_SAID_OF)} FROM said"
                " WHERE model = $model AND json_keys(keys) = $names"
            )
            yield names, cursor.sql(query, params={"model": self.spec.name, "names": names}).to_arrow_table()

    def _label_table(
        self, cursor: duckdb.DuckDBPyConnection, times: tuple[int, int], known_by_us: int
    ) -> Iterator[tuple[Sequence[str], pa.Table]]:
        tolerance = self.spec.labels.tolerance // _MICROSECOND
        between = (times[0] - tolerance, times[1] + tolerance)
        rows = read_labels(cursor, self.repo, self.plan, self.spec, between=between)
        rows = rows.append_column("row", pa.array(range(rows.num_rows), pa.int32()))
        cursor.register("label_table", rows.filter(pc.field(LABEL).is_valid() & (pc.field(KNOWN) <= known_by_us)))
        columns = self._columns()
        key = _key([(column, _plain(quote(column.name), column)) for column in columns])
        query = (
            f"SELECT {key} AS key, {TIME} AS moment, {LABEL} AS label, NULL::DOUBLE AS value, {KNOWN} AS known_at,"
            f" {KNOWN} AS received_at, '' AS batch, row FROM label_table"
        )
        yield [column.name for column in columns], cursor.sql(query).to_arrow_table()

    def _unit(self) -> str:
        rollout = self.spec.rollout
        names = (rollout and rollout.sticky) or [column.name for column in self.plan.join_keys]
        return _UNIT.format(key=_key([(column, _from_json("inputs", column)) for column in self._columns(names)]))

    def _columns(self, names: Sequence[str] | None = None) -> list[Column]:
        """Return keys and request fields in order of their names; with names, those among them."""
        known = sorted((*self.plan.join_keys, *self.plan.request), key=lambda column: column.name)
        return [column for column in known if names is None or column.name in names]


def _key(parts: Sequence[tuple[Column, str]]) -> str:
    """Return an expression for one text that tells entities apart, nulls too."""
    return f"to_json([{', '.join(f'CAST({value} AS VARCHAR)' for _, value in parts)}])::VARCHAR"


def _from_json(column: str, of: Column) -> str:
    """Return a field of a JSON object in the plan's type; null where serving would have refused it."""
    path = sql_literal('$."' + of.name.replace('"', '\\"') + '"')
    value = f"json_extract_string({column}, {path})"
    if of.dtype is DType.TIMESTAMP:
        return f"coalesce(TRY_CAST({value} AS BIGINT), epoch_us(TRY_CAST({value} AS TIMESTAMPTZ)))"
    if of.dtype is DType.BYTES:
        return f"encode({value})"
    # Serving rounds once from the double that JSON means.
    value = f"TRY_CAST({value} AS DOUBLE)" if of.dtype is DType.FLOAT32 else value
    return _plain(value if of.dtype.is_text else f"TRY_CAST({value} AS {of.dtype.sql})", of)


def _plain(value: str, of: Column) -> str:
    """Return a value with one zero, and null for what is no number."""
    if of.dtype in {DType.FLOAT32, DType.FLOAT64}:
        return f"CASE WHEN isfinite({value}) THEN {value} + 0.0::{of.dtype.sql} END"
    return value


_EMPTY = pa.schema(
    [
        ("id", pa.string()),
        ("t", pa.int64()),
        ("version", pa.string()),
        ("role", pa.string()),
        ("policy", pa.int64()),
        ("score", pa.float64()),
        ("scores", pa.list_(pa.float64())),
        ("label", pa.float64()),
        ("value", pa.float64()),
        ("known_at", pa.int64()),
        ("unit", pa.uint64()),
    ]
).empty_table()
