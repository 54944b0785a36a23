"""The latest predictions, of all entities or of one, and the outcomes of single predictions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array, typed_array
from skewless.contract.errors import RequestError
from skewless.contract.keys import parse_key
from skewless.contract.names import check_known
from skewless.contract.plain_record import PlainRecord

if TYPE_CHECKING:
    from skewless.contract.columns import Column
    from skewless.contract.keys import KeyValue
    from skewless.infra.records.outcomes.labelled_log import FoundOutcome, LabelledLog
    from skewless.infra.records.predictions.reader import PredictionEntry
    from skewless.infra.records.predictions.search import PredictionList, PredictionRow
    from skewless.workspace import Workspace

_MICROSECOND = timedelta(microseconds=1)
# Rows of the same entity are near enough to have its outcome; keys are compared by their values, as texts.
_NEIGHBOURS_SQL = """
    SELECT id, t, version, role, inputs, source = 'entities' AS has_keys FROM rows
    WHERE model = $model AND t >= $since AND t <= $until AND (id = $id OR source = 'entities' AND ({same}))
    LIMIT {most}
"""
_MOST_NEIGHBOURS = 10_000


@dataclass(frozen=True, kw_only=True)
class LoggedPrediction(PlainRecord):
    """A prediction in a list.

    Args:
        outcome: None: not known, or not asked for.
    """

    prediction: PredictionRow
    outcome: FoundOutcome | None


def predictions(
    project: Workspace,
    model: str | None = None,
    *,
    keys: Mapping[str, str] | None = None,
    limit: int = 50,
    page: str | None = None,
) -> PredictionList:
    """Return the latest predictions in the log; only its latest part is read.

    Args:
        model: only of this model.
        keys: join key -> value as text: only of this entity; predictions with more keys belong to it, too.
        limit: number of predictions.
        page: ``next_page`` of the previous list.

    Raises:
        RequestError: the plan has no such model or key, or the value is not of its type.
        StoreError: the database or the storage is unavailable, or a file is corrupt.
    """
    if model is not None:
        check_known("model", model, sorted({*project.packages.list_models()} | {spec.name for spec in project.models}))
    models = None if model is None else {model}
    return list_of_models(project, models, keys=keys, limit=limit, page=page)


def list_of_models(
    project: Workspace,
    models: Collection[str] | None,
    *,
    keys: Mapping[str, str] | None = None,
    limit: int = 50,
    page: str | None = None,
) -> PredictionList:
    """Return the latest predictions of some models; see ``predictions``."""
    from skewless.infra.records.predictions.search import list_predictions

    return list_predictions(
        project.state,
        project.connection,
        models=models,
        keys=parse_entity(project, keys) if keys else (),
        most=limit,
        page=page,
    )


def parse_entity(project: Workspace, keys: Mapping[str, str]) -> list[tuple[Column, KeyValue]]:
    """Return the join keys of an entity with their values.

    Raises:
        RequestError: the plan has no such key, or a value is missing or not of its type.
    """
    columns = {column.name: column for column in project.needed.plan.join_keys}
    entity = []
    for name, text in keys.items():
        check_known("join key", name, sorted(columns))
        value = parse_key(columns[name], text)
        if value is None:
            raise RequestError(f"join key {name!r}", "is null", fix="give its value")
        entity.append((columns[name], value))
    return entity


def find_outcome(project: Workspace, entry: PredictionEntry) -> FoundOutcome | None:
    """Return the known outcome of a prediction; None: it is not known, or the plan does not have the model any more.

    Raises:
        StoreError: a file of a log is corrupt.
        SourceError: the label table cannot be read.
    """
    from skewless.infra.records.predictions.input_sql import json_field_sql
    from skewless.infra.records.predictions.search import read_near

    log = _open_log(project, entry.model_version.model)
    if log is None:
        return None
    # A label by entity belongs to the nearest prediction, so neighbouring predictions of its keys are read too.
    t, around = int(entry.logged.t[0]), 2 * (log.spec.labels.tolerance // _MICROSECOND)
    given = entry.facts["inputs"] if entry.logged.source == "entities" else "{}"
    same = [
        f"{json_field_sql('inputs', column)} = {json_field_sql('$inputs', column)}" for column in log.plan.join_keys
    ]
    query = _NEIGHBOURS_SQL.format(same=" OR ".join(same) or "false", most=_MOST_NEIGHBOURS)
    values: dict[str, Any] = {"model": log.spec.name, "since": t - around, "until": t + around}
    values |= {"id": entry.logged.ids[0]} | ({"inputs": given} if same else {})
    rows = read_near(project.state, project.connection, t, query, around_us=around, **values)
    own = (entry.logged.ids[0], entry.model_version.version, entry.logged.roles[0])
    return _match(project, log, rows).get(own) if rows.num_rows else None


def with_outcomes(project: Workspace, rows: Sequence[PredictionRow]) -> list[LoggedPrediction]:
    """Return predictions of one entity with their known outcomes.

    Args:
        rows: also those next to each other in time, because an outcome belongs to the nearest prediction.

    Raises:
        StoreError: a file of a log is corrupt.
        SourceError: the label table cannot be read.
    """
    found: dict[tuple[str, str, str], FoundOutcome] = {}
    for model in sorted({row.model for row in rows}):
        log = _open_log(project, model)
        own = [row for row in rows if row.model == model]
        if log is not None:
            columns = {
                "id": typed_array([row.id for row in own], pa.string()),
                "t": int64_array(np.array([row.t_us for row in own], np.int64)),
                "version": typed_array([row.version for row in own], pa.string()),
                "role": typed_array([row.role for row in own], pa.string()),
                "inputs": typed_array([row.inputs for row in own], pa.string()),
                "has_keys": int64_array(np.array([row.source == "entities" for row in own], np.int64)).cast(pa.bool_()),
            }
            found |= _match(project, log, pa.table(columns))
    return [LoggedPrediction(prediction=row, outcome=found.get((row.id, row.version, row.role))) for row in rows]


def _open_log(project: Workspace, model: str) -> LabelledLog | None:
    from skewless.operations.models.quality import labelled_log

    return labelled_log(project, model) if model in {spec.name for spec in project.models} else None


def _match(project: Workspace, log: LabelledLog, rows: pa.Table) -> dict[tuple[str, str, str], FoundOutcome]:
    outcomes = log.find_outcomes(rows, project.clock.now_us())
    return {(item.id, item.version, item.role): item for item in outcomes}
