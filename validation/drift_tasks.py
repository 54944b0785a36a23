"""Counts the predictions of a window for drift: parts of the log are counted alone, large ones by tasks, and added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.columns import digest
from skewless.infra.log.catalog import Segment
from skewless.infra.log.readers import register_reader
from skewless.infra.models.packages.package import Package, open_package, pinned_plan
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.storage.objects import ObjectStorage, StoredObject
from skewless.infra.reads.engines.engine import Engine, open_project
from skewless.infra.reads.engines.results import digest_table, read_json, read_table, write_json, write_table
from skewless.infra.reads.engines.task import Task, TaskResult
from skewless.infra.records.outcomes.labelled_log import LabelledLog, OutcomeCandidates
from skewless.infra.records.predictions.live_predictions import ServedScores, mean_repeats
from skewless.infra.records.predictions.segments import open_prediction_log
from skewless.validation.drift.verdicts import LABEL, WindowCounts, count_window

# A prediction has a vector of many numbers, a read of each view, and inputs whose keys may have an outcome.
COST = 10
_TASK_SEGMENTS = 256  # a worker that is killed loses no more
_NOTHING = OutcomeCandidates(by_id=pa.table({"prediction_id": pa.chunked_array([], pa.string())}), by_key=())


@dataclass(frozen=True, kw_only=True)
class WindowMeasures:
    """The counts and labels of a window, which drift compares with training.

    Args:
        counts: of the served predictions.
        repeats: see ``mean_repeats``.
        labels: known labels of the predictions, in any order, shape ``(n,)``.
    """

    counts: WindowCounts
    repeats: Mapping[str, float]
    labels: npt.NDArray[np.float64]


def measure_window(
    package: Package, scores: ServedScores, *, labelled: LabelledLog, known_by_us: int, engine: Engine
) -> WindowMeasures:
    """Return the measures of served predictions; those of a large log are counted on the engine.

    Args:
        labelled: finds the labels.
        known_by_us: labels that became known later do not count.

    Raises:
        StoreError: a log file is corrupt, or the storage or database is unavailable.
        SourceError: the label table cannot be read.
    """
    register_reader(scores.state.database)  # its segments must stay until the tasks have read them
    segments = open_prediction_log(scores.state).segments()
    has_labels = bool(segments and package.profile.get(LABEL))
    outcomes = labelled.outcomes(scores.since_us, scores.until_us, known_by_us) if has_labels else _NOTHING
    counts, uses, predictions = count_window(package.profile, _feature_names(package)), [], []
    for part in _count_parts(package, scores, outcomes, segments, engine):
        own = replace(counts.histograms, counts=np.array(part.body["counts"], dtype=np.int64))
        counts = counts.add(WindowCounts(rows=part.body["rows"], histograms=own))
        uses.append(part.uses)
        predictions.append(part.predictions)
    return WindowMeasures(
        counts=counts,
        repeats=mean_repeats(scores.connection, uses),
        labels=labelled.match(outcomes, pa.concat_tables(predictions)),
    )


class _Part(NamedTuple):
    """The counts of a part of the log as plain values, the uses of feature rows, and what may have an outcome."""

    body: dict[str, Any]
    uses: pa.Table
    predictions: pa.Table


def _count_parts(
    package: Package, scores: ServedScores, outcomes: OutcomeCandidates, segments: Sequence[Segment], engine: Engine
) -> Iterator[_Part]:
    total, storage = sum(segment.rows for segment in segments), scores.state.storage
    if not engine.is_large(total, COST):
        yield _count_part(package, scores, outcomes.by_id, outcomes.by_key)
        return

    def plan_tasks() -> Sequence[Task]:
        return _plan_tasks(package, scores, outcomes, segments, engine)

    with engine.run("drift", "counting predictions", total, plan_tasks) as results:
        for result in results:
            body, *tables = result.objects
            yield _Part(read_json(storage, body), *(read_table(storage, stored) for stored in tables))


def _count_part(package: Package, scores: ServedScores, ids: pa.Table, keys: Sequence[tuple[str, pa.Table]]) -> _Part:
    counts = count_window(package.profile, _feature_names(package), scores.batches())
    body = {"rows": counts.rows, "counts": counts.histograms.counts.tolist()}
    return _Part(body, scores.uses(), scores.with_outcome(ids, keys))


def _plan_tasks(
    package: Package, scores: ServedScores, outcomes: OutcomeCandidates, segments: Sequence[Segment], engine: Engine
) -> list[Task]:
    # The buckets of this log are its segments, as for replay.
    lookups = _store_lookups(scores.state.storage, outcomes)
    return engine.split(
        "drift",
        len(segments),
        connection=scores.connection,
        plan="",
        snapshot={"since": scores.since_us, "until": scores.until_us},
        parameters={
            "model": scores.model,
            "version": scores.version,
            "package": package.digest,
            "keys": [key for key, _ in outcomes.by_key],
        },
        inputs=lookups,
        per_bucket=[segment.stored for segment in segments],
        least=-(-len(segments) // _TASK_SEGMENTS),
    )


def _store_lookups(storage: ObjectStorage, outcomes: OutcomeCandidates) -> list[StoredObject]:
    """Store the ids and the keys that have outcomes: tasks find their predictions, and the driver matches them."""
    tables = [outcomes.by_id.select(["prediction_id"]), *(table.select(["key"]) for _, table in outcomes.by_key)]
    names = [digest_table(table) for table in tables]
    folder = f"inputs-{digest(names)}"
    return [write_table(storage, folder, table, name) for table, name in zip(tables, names, strict=True)]


def count(task: Task) -> TaskResult:
    """Count the predictions of a task's segments.

    The result has the histograms, the uses of feature rows, and the predictions that may have an outcome.
    """
    project = open_project(task)
    state, given = project.views.state, task.parameters
    places = len(given["keys"]) + 1
    package = open_package(PackageStore.of(state, project.settings), given["model"], given["version"])
    scores = ServedScores(
        state=state,
        connection=project.views.connection,
        model=given["model"],
        version=given["version"],
        since_us=task.snapshot["since"],
        until_us=task.snapshot["until"],
        only=task.inputs[places:],
    )
    ids, *keys = (read_table(state.storage, stored) for stored in task.inputs[:places])
    body, *tables = _count_part(package, scores, ids, list(zip(given["keys"], keys, strict=True)))
    return TaskResult(
        objects=(
            write_json(state.storage, task.job, body),
            *(write_table(state.storage, task.job, table) for table in tables),
        ),
        rows=sum(pq.read_metadata(path).num_rows for path in state.storage.local_paths(scores.only or ())),
        digest=digest([body, *map(digest_table, tables)]),
    )


def _feature_names(package: Package) -> list[str]:
    """Return the names of a version's features, in the order of its vectors."""
    return [ref.label for ref in pinned_plan(package).services[0].features]
