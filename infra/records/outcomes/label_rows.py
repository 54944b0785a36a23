"""Label rows from outcomes: the predictions of a model with their outcomes, written as a label table (SEMANTICS 10)."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import file_digest
from pathlib import Path

import duckdb
import pyarrow as pa

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.labels import LabelSource, Outcomes
from skewless.contract.spec import ModelSpec
from skewless.infra.log.reading import translate_query_errors
from skewless.infra.platform.storage.durable import make_folder, remove_at_end
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.labels import KNOWN, LABEL, WEIGHT, OutcomeTable, query_labels
from skewless.infra.reads.offline.sql import quote, sql_literal
from skewless.infra.records.outcomes.labelled_log import BEST_SQL, TABLE_BATCH, LabelledLog, match_outcomes
from skewless.infra.records.outcomes.log import OutcomeLog
from skewless.infra.records.predictions.input_sql import json_value_sql
from skewless.infra.records.predictions.segments import ROWS_SQL, prediction_files

FOLDER = "label_rows"  # of the state folder
_KEPT_S = 86_400  # longer than anybody reads a file
_MICROSECOND = timedelta(microseconds=1)
_MOST_RELEVANT = 30  # greatest label of a ranking model
_PREDICTIONS_SQL = f"""
    CREATE TEMP TABLE predictions AS
    SELECT row_number() OVER (ORDER BY t, id, version, role) AS n, * FROM (
        SELECT id, t, version, role, inputs, action, propensity, source = 'entities' AS has_keys
        FROM {ROWS_SQL} WHERE model = $model AND role <> 'shadow'
    )
"""
_NO_PREDICTIONS_SQL = """
    CREATE TEMP TABLE predictions (n BIGINT, id VARCHAR, t BIGINT, version VARCHAR, role VARCHAR, inputs VARCHAR,
        action VARCHAR, propensity DOUBLE, has_keys BOOLEAN)
"""
# A prediction is used if there is no reason to skip it; the first reason counts.
_JOINED_SQL = f"""
    CREATE TEMP TABLE joined AS {BEST_SQL}
    SELECT *, CASE
        WHEN NOT has_keys THEN 'without_keys'
        WHEN NOT is_observed THEN 'unobserved'
        WHEN NOT is_usable THEN 'unusable'
        WHEN outcome IS NOT NULL THEN NULL
        WHEN is_retracted THEN 'retracted'  -- before the assumption: what was withdrawn is not missing
        WHEN $missing IS NOT NULL THEN NULL
        ELSE 'without_outcome'
    END AS skip_reason
    FROM (
        SELECT predictions.*, best.label AS outcome, coalesce(best.label, $missing) AS label,
            t + $maturity AS mature_at, {{first}} AS first,
            coalesce(best.weight, 1.0) AS given_weight, {{inverse}} AS inverse,
            {{observed}} AS is_observed, best.label IS NULL OR {{usable}} AS is_usable,
            coalesce(best.is_retracted, false) AS is_retracted
        FROM predictions LEFT JOIN best USING (n)
    )
"""
_REASONS = ("without_keys", "unobserved", "unusable", "retracted", "without_outcome")
_COUNTS_SQL = f"""
    SELECT
        count(*) AS predictions,
        {", ".join(f"count(*) FILTER (skip_reason = '{name}') AS {name}" for name in _REASONS)},
        count(*) FILTER (skip_reason IS NULL AND outcome IS NULL) AS assumed,
        count(*) FILTER (skip_reason IS NULL AND inverse > $most) AS clipped
    FROM joined
"""
_USED_SQL = """
    SELECT {fields}, make_timestamptz(t + $horizon) AS outcome_time,
        make_timestamptz(CASE WHEN outcome IS NULL THEN mature_at ELSE greatest(first, mature_at) END) AS outcome_known,
        label AS {label}, least(inverse, $most) * given_weight AS outcome_weight, id AS outcome_prediction
    FROM joined WHERE skip_reason IS NULL
"""
# Rows of the table that belong to no prediction.
_OWN_SQL = f"""
    SELECT {{fields}}, make_timestamptz({TIME} + $horizon) AS outcome_time,
        make_timestamptz(CASE WHEN {KNOWN} IS NOT NULL THEN greatest({KNOWN}, {TIME} + $maturity) END) AS outcome_known,
        {LABEL} AS {{label}}, {WEIGHT} AS outcome_weight, NULL AS outcome_prediction
    FROM label_table WHERE row NOT IN (SELECT row FROM candidates WHERE batch = '{TABLE_BATCH}')
"""


@dataclass(frozen=True, kw_only=True)
class ResolvedLabels:
    """The labels of a model as a table.

    Args:
        spec: the spec, with a LabelSource.
        counts: predictions by their use, if the labels are outcomes; else empty.
    """

    spec: ModelSpec
    counts: Mapping[str, int] = field(default_factory=dict)


def resolve_labels(log: LabelledLog, now_us: int) -> ResolvedLabels:
    """Return a model's labels as a table; outcomes are written to one, as they were known at a time.

    The file never changes, so that its rows are the same each time they are read. It is deleted a day later.

    Raises:
        StoreError: a log is corrupt, or the disk failed.
        SourceError: the label table cannot be read.
    """
    labels = log.spec.labels
    if isinstance(labels, LabelSource):
        return ResolvedLabels(spec=log.spec)
    with _open_rows(log, labels, now_us) as cursor:
        values = {"horizon": log.spec.horizon // _MICROSECOND, "most": labels.max_weight}
        label = _label_name(log, labels)
        rows = _USED_SQL.format(
            fields=_fields(log, lambda column: json_value_sql("inputs", column)), label=quote(label)
        )
        if labels.table is not None:
            values["maturity"] = labels.maturity // _MICROSECOND
            own = _OWN_SQL.format(fields=_fields(log, lambda column: quote(column.name)), label=quote(label))
            rows = f"{rows} UNION ALL {own}"
        path = _write(cursor, rows, values, log.state / FOLDER / log.spec.name)
        counted = cursor.execute(_COUNTS_SQL, {"most": labels.max_weight})
        names = [name for name, *_ in counted.description or ()]
        counts = dict(zip(names, counted.fetchall()[0], strict=True))
    source = OutcomeTable(
        path=str(path),
        event_time="outcome_time",
        known_time="outcome_known",
        label=label,
        weight="outcome_weight",
        prediction="outcome_prediction",
        columns={column.name: column.name for column in log.columns()},
        tolerance=labels.tolerance,
    )
    return ResolvedLabels(spec=replace(log.spec, labels=source), counts=counts)


def read_latest_labels(log: LabelledLog, known_by_us: int, most: int = 100_000) -> pa.Table:
    """Return ``t`` and ``known_at`` of the latest label rows that were known by a time.

    Raises: as ``resolve_labels``.
    """
    question = (
        f"SELECT {TIME} AS t, {KNOWN} AS known_at FROM labels WHERE {LABEL} IS NOT NULL"
        f" AND {KNOWN} <= {known_by_us:d} AND {TIME} IS NOT NULL ORDER BY {TIME} DESC, {KNOWN} LIMIT {most:d}"
    )
    return _ask_labels(log, question, known_by_us)


def count_labels(log: LabelledLog, after_us: int, until_us: int) -> int:
    """Return how many label rows became known after one time, up to and including another.

    Raises: as ``resolve_labels``.
    """
    times = f"{KNOWN} > {after_us:d} AND {KNOWN} <= {until_us:d}"
    table = _ask_labels(log, f"SELECT count(*) AS n FROM labels WHERE {LABEL} IS NOT NULL AND {times}", until_us)
    return int(table["n"][0].as_py())


def delete_label_rows(state: ProjectState) -> None:
    """Delete all written label rows, which have the keys of entities; a training that reads them fails."""
    shutil.rmtree(state / FOLDER, ignore_errors=True)


def _ask_labels(log: LabelledLog, question: str, now_us: int) -> pa.Table:
    return query_labels(log.connection, log.repo, log.plan, resolve_labels(log, now_us).spec, question)


@contextmanager
def _open_rows(log: LabelledLog, labels: Outcomes, now_us: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a cursor with the predictions in ``joined``, and a label table in ``label_table``."""
    files = prediction_files(log.state)
    # A cursor has temporary tables of its own.
    with closing(log.connection.cursor()) as cursor, translate_query_errors("prediction log"):
        if files:
            cursor.execute(_PREDICTIONS_SQL, {"files": files, "model": log.spec.name})
        else:
            cursor.execute(_NO_PREDICTIONS_SQL)
        table = log.read_table(cursor)
        if table is not None:
            cursor.register("label_table", table)
        # Without a filter by arrival, a training as of a time would see outcomes that came later.
        arrived_by_us = now_us if labels.known == "arrived" else _ALWAYS
        latest = OutcomeLog(log.state, cursor).latest(now_us, arrived_by_us=arrived_by_us)
        match_outcomes(cursor, log.candidates(cursor, latest, table, now_us), log.tolerance_us)
        observed = ", ".join(map(sql_literal, labels.observed))
        query = _JOINED_SQL.format(
            first="best.first_arrived" if labels.known == "arrived" else "best.first_known",
            inverse="coalesce(1.0 / nullif(propensity, 0.0), 1.0)" if labels.weighted else "1.0",
            observed=f"coalesce(action IN ({observed}), false)" if observed else "true",
            usable=_usable_sql(log.spec),
        )
        values = {"missing": labels.missing, "maturity": labels.maturity // _MICROSECOND}
        cursor.execute(query, values)
        yield cursor


_ALWAYS = 2**62  # later than any time


def _usable_sql(spec: ModelSpec) -> str:
    """Return an SQL expression: whether the task can have the label. Senders of outcomes must not stop a training."""
    if spec.task == "regression":
        return "true"
    most = {"binary": 1, "multiclass": len(spec.classes) - 1, "ranking": _MOST_RELEVANT}[spec.task]
    return f"(best.label = floor(best.label) AND best.label BETWEEN 0 AND {most:d})"


def _label_name(log: LabelledLog, labels: Outcomes) -> str:
    """Return the name of the label's column: that of the table, so that expectations hold for both."""
    names = [column.name for column in log.columns()]
    return "outcome_label" if labels.table is None or labels.table.label in names else labels.table.label


def _fields(log: LabelledLog, value: Callable[[Column], str]) -> str:
    """Return SQL for the keys and request fields; ``value`` gives a time in microseconds."""
    parts = []
    for column in log.columns():
        sql = value(column)
        sql = f"make_timestamptz({sql})" if column.dtype is DType.TIMESTAMP else sql
        parts.append(f"{sql} AS {quote(column.name)}")
    return ", ".join(parts)


def _write(cursor: duckdb.DuckDBPyConnection, rows: str, values: Mapping[str, float], folder: Path) -> Path:
    """Write rows to a file that is named by its content."""
    make_folder(folder)
    now_s = time.time()
    for old in folder.glob("*.parquet"):
        if now_s - old.stat().st_atime > _KEPT_S:
            old.unlink(missing_ok=True)
    with remove_at_end(folder / f".{uuid.uuid4().hex}.tmp") as temporary:
        query = f"COPY ({rows} ORDER BY ALL) TO {sql_literal(str(temporary))} (FORMAT parquet, COMPRESSION zstd)"
        cursor.execute(query, dict(values))
        with temporary.open("rb") as file:
            path = folder / f"{file_digest(file, 'sha256').hexdigest()[:32]}.parquet"
        if path.exists():
            # Equal rows keep the time of the file, by which an interrupted training is continued.
            os.utime(path, (now_s, path.stat().st_mtime))
        else:
            temporary.replace(path)
    return path
