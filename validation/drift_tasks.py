"""Drift by tasks: each counts the predictions of some segments of the log, and the driver adds the counts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq

from skewless.contract.columns import digest
from skewless.infra.engines.engine import Engine, open_project
from skewless.infra.engines.results import digest_table, read_json, read_table, write_json, write_table
from skewless.infra.engines.task import Task, TaskResult
from skewless.infra.log.readers import register_reader
from skewless.infra.packages.package import Package, open_package, pinned_plan
from skewless.infra.packages.store import PackageStore
from skewless.infra.predictions.live_predictions import ServedScores, mean_repeats
from skewless.infra.predictions.segments import open_prediction_log
from skewless.validation.drift.verdicts import WindowCounts, count_window

# A prediction has a vector of many numbers, and a read of each view.
COST = 10
_TASK_SEGMENTS = 256  # a worker that is killed loses no more


def count_on_engine(package: Package, scores: ServedScores, *, engine: Engine) -> tuple[WindowCounts, dict[str, float]]:
    """Return the counts of served predictions and ``ServedScores.repeats``; a large log is counted on the engine.

    Raises:
        StoreError: a log file is corrupt, or the storage or database is unavailable.
    """
    names = feature_names(package)
    register_reader(scores.state.database)  # its segments must stay until the tasks have read them
    segments = open_prediction_log(scores.state).segments()
    total = sum(segment.rows for segment in segments)
    if not engine.is_large(total, COST):
        return count_window(package.profile, names, scores.batches()), scores.repeats()

    def plan_tasks() -> Sequence[Task]:
        # The buckets of this log are its segments, as for replay.
        return engine.split(
            "drift",
            len(segments),
            connection=scores.connection,
            plan="",
            snapshot={"since": scores.since_us, "until": scores.until_us},
            parameters={"model": scores.model, "version": scores.version, "package": package.digest},
            per_bucket=[segment.stored for segment in segments],
            least=-(-len(segments) // _TASK_SEGMENTS),
        )

    counts, uses, storage = count_window(package.profile, names), [], scores.state.storage
    with engine.run("drift", "counting predictions", total, plan_tasks) as results:
        for result in results:
            body, stored = read_json(storage, result.objects[0]), result.objects[1]
            own = replace(counts.histograms, counts=np.array(body["counts"], dtype=np.int64))
            counts = counts.add(WindowCounts(rows=body["rows"], histograms=own))
            uses.append(read_table(storage, stored))
        return counts, mean_repeats(scores.connection, uses)


def count(task: Task) -> TaskResult:
    """Count the predictions of a task's segments; the result has the histograms, and the uses of feature rows."""
    project, began = open_project(task), time.perf_counter()
    state, given = project.views.state, task.parameters
    package = open_package(PackageStore.of(state, project.settings), given["model"], given["version"])
    scores = ServedScores(
        state=state,
        connection=project.views.connection,
        model=given["model"],
        version=given["version"],
        since_us=task.snapshot["since"],
        until_us=task.snapshot["until"],
        only=task.inputs,
    )
    counts, uses = count_window(package.profile, feature_names(package), scores.batches()), scores.uses()
    body = {"rows": counts.rows, "counts": counts.histograms.counts.tolist()}
    return TaskResult(
        objects=(write_json(state.storage, task.job, body), write_table(state.storage, task.job, uses)),
        rows=sum(pq.read_metadata(path).num_rows for path in state.storage.local_paths(task.inputs)),
        digest=digest([body, digest_table(uses)]),
        compute_s=time.perf_counter() - began,
    )


def feature_names(package: Package) -> list[str]:
    """Return the names of a version's features, in the order of its vectors."""
    return [ref.label for ref in pinned_plan(package).services[0].features]
