"""Batch prediction by tasks: each predicts some chunks of a file, and the driver writes their results, in order."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.clock import open_clock
from skewless.contract.plan import FeaturePlan
from skewless.contract.vector import Matrix
from skewless.infra.engines.engine import Engine, open_project
from skewless.infra.engines.results import FOLDER
from skewless.infra.engines.task import Task, TaskResult
from skewless.infra.offline.views import OfflineViews
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.storage.objects import ObjectStorage, StoredObject, digest_file
from skewless.serving.batch import (
    add_results,
    check_folder,
    open_predictor,
    open_target,
    predict_file,
    read_chunks,
    run_coroutine,
    score_chunk,
)
from skewless.serving.server_config import ServerConfig

# A row becomes a Python object, is read from the online store, scored and logged.
COST = 30
_TASK_CHUNKS = 256  # about a million rows; a worker that is killed loses no more
_DAY_US = 86_400_000_000
_BLOCK = 1 << 20


def predict_file_on_engine(
    config: ServerConfig,
    model: str | None,
    source: Path,
    target: Path,
    *,
    open_views: Callable[[], OfflineViews],
    engine: Engine,
) -> int:
    """Return what ``predict_file`` returns, and write the same rows; a large file is predicted on the engine.

    Args:
        open_views: opens the views of the log; called for a large file.

    Raises:
        PlaceError, SourceError, RequestError, StoreError: as ``predict_file``.
    """
    total = _count_rows(source)
    if not engine.is_large(total, COST):
        return predict_file(config, model, source, target)
    check_folder(target)
    served = run_coroutine(_load_model(config, model))
    views, storage = open_views(), config.state.storage

    def plan_tasks() -> Sequence[Task]:
        stored, chunks = _store_chunks(storage, source, served.plan, config)
        return engine.split(
            "predict",
            chunks,
            connection=views.connection,
            plan=served.plan.hash,
            snapshot=_snapshot(views, served.plan, config.clock.now_us()),
            parameters={"model": served.name, "version": served.version, "package": served.package.digest},
            inputs=(stored,),
            least=-(-chunks // _TASK_CHUNKS),
            secrets={"redis_url": config.redis_url},
        )

    # Within the job: if the disk is full, the results stay for the next command.
    with engine.run("predict", "predicting rows", total, plan_tasks) as results, open_target(target) as write:
        for result in results:
            part = pq.ParquetFile(storage.local_path(result.objects[0]))
            for i in range(part.num_row_groups):
                write(part.read_row_group(i))
    return sum(result.rows for result in results)


def predict_chunks(task: Task) -> TaskResult:
    """Predict the rows of a task's chunks; the result has them with their predictions."""
    project, began = open_project(task), time.perf_counter()
    settings, state = project.settings, project.views.state
    config = ServerConfig(
        repo=Path(task.repo),
        state=state,
        redis_url=settings.redis_url or "",
        clock=open_clock(settings.clock),
        settings=settings,
    )
    path = state.storage.staging_path()
    try:
        done = run_coroutine(_predict_chunks(config, task, state.storage.local_path(task.inputs[0]), path))
        stored = state.storage.put_file(f"{FOLDER}/{task.job}/{uuid.uuid4().hex}.parquet", path)
    finally:
        path.unlink(missing_ok=True)
    return replace(done, objects=(stored,), compute_s=time.perf_counter() - began)


async def _predict_chunks(config: ServerConfig, task: Task, source: Path, target: Path) -> TaskResult:
    chunks, rows = pq.ParquetFile(source), 0
    scores, vectors = blake2b(task.name.encode(), digest_size=16), blake2b(digest_size=16)
    with open_target(target) as write:
        async with open_predictor(config, task.parameters["model"], task.parameters["version"]) as (predictor, model):
            for i in range(task.first, task.end):
                chunk = chunks.read_row_group(i)
                scored = await score_chunk(predictor, model, chunk)
                write(add_results(chunk, scored))
                rows += scored.n
                vectors.update(_canonical_bytes(scored.matrix))
                # Some GPUs and libraries round otherwise: such a model has a tolerance.
                if model.certificate.bit_equal:
                    scores.update(_canonical_bytes(scored.scores))
    # Ids and times are new in each attempt. Vectors may be: they are those of the online store and of the time.
    return TaskResult(rows=rows, digest=scores.hexdigest(), basis=vectors.hexdigest())


def _canonical_bytes(values: Matrix) -> bytes:
    """Return the bytes of an array; all NaNs are equal, because a null has no bits of its own."""
    return np.where(np.isnan(values), np.nan, values).tobytes()


async def _load_model(config: ServerConfig, name: str | None) -> ServedModel:
    async with open_predictor(config, name) as (_, model):
        return model


def _store_chunks(
    storage: ObjectStorage, source: Path, plan: FeaturePlan, config: ServerConfig
) -> tuple[StoredObject, int]:
    """Store a file with a row group per chunk, for all workers; return it and the number of chunks."""
    path, chunks = storage.staging_path(), 0
    try:
        with open_target(path) as write:
            for chunk in read_chunks(source, plan, config.settings):
                write(chunk)
                chunks += 1
        # By its content, so that the same command finds the results of an interrupted one.
        name = digest_file(path)
        return storage.put_file(f"{FOLDER}/inputs-{name}/{name}.parquet", path), chunks
    finally:
        path.unlink(missing_ok=True)


def _snapshot(views: OfflineViews, plan: FeaturePlan, now_us: int) -> dict[str, Any]:
    """Return the ends of the logs of a plan, and the day: no prediction of an older command is taken over."""
    ends: dict[str, Any] = {view.name: views.log(view).next_seq() for view in plan.views}
    return {"logs": ends | {view.name: dict(views.log_ends(view)) for view in plan.windows}, "day": now_us // _DAY_US}


def _count_rows(source: Path) -> int:
    """Return the number of rows of a Parquet file, or of lines of a CSV file; 0: it cannot be read."""
    try:
        if source.suffix != ".csv":
            return int(pq.ParquetFile(source).metadata.num_rows)
        with source.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))
    except (OSError, pa.ArrowException):
        return 0  # the reader says why
