"""Batch prediction by tasks: each predicts some chunks of the input, and the driver writes their results, in order."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.clock import open_clock
from skewless.contract.plan import FeaturePlan
from skewless.contract.settings import Settings
from skewless.contract.vector import Matrix
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.platform.storage.durable import remove_at_end
from skewless.infra.platform.storage.objects import ObjectStorage, StoredObject, digest_file
from skewless.infra.reads.engines.engine import Engine, open_project
from skewless.infra.reads.engines.results import FOLDER
from skewless.infra.reads.engines.task import Task, TaskResult
from skewless.infra.reads.offline.views import OfflineViews
from skewless.serving.batch import (
    add_results,
    check_leaves_target,
    chunk_rows,
    open_predictor,
    predict_files,
    result_names,
    run_coroutine,
)
from skewless.serving.batch_files import (
    InputFile,
    InputRows,
    check_target,
    open_input,
    open_target,
    open_targets,
    read_range,
)
from skewless.serving.server_config import ServerConfig

# A row becomes a Python object, is read from the online store, scored and logged.
COST = 30
_TASK_CHUNKS = 256  # about a million rows; a worker that is killed loses no more
_DAY_US = 86_400_000_000


def predict_file(
    config: ServerConfig,
    model: str | None,
    source: Path,
    target: Path,
    *,
    open_views: Callable[[], OfflineViews],
    engine: Engine,
    leaves: bool = False,
) -> int:
    """Predict every row of a file or a folder, see ``predict_files``; many rows are predicted on the engine.

    Args:
        open_views: opens the views of the log; called for a large file.
        leaves: as for ``predict_files``.

    Raises:
        PlaceError, SourceError, RequestError, StoreError: as ``predict_files``.
    """
    rows = open_input(source)
    if leaves:
        check_leaves_target(rows, target)
    if not engine.is_large(rows.rows, COST):
        return predict_files(config, model, rows, target, leaves=leaves)
    check_target(rows, target)
    served = run_coroutine(_load_model(config, model))
    rows.check_columns(served.plan, result_names(served, leaves=leaves))
    views, storage, places = open_views(), config.state.storage, list[int]()

    def plan_tasks() -> Sequence[Task]:
        # Workers of this machine read Parquet files where they are; others may not even see them.
        is_read_in_place = engine.has_local_workers and not rows.files[0].is_csv
        stored, numbers = (_list_chunks if is_read_in_place else _store_chunks)(storage, rows, config.settings)
        places.extend(numbers)
        return engine.split(
            "predict",
            len(numbers),
            connection=views.connection,
            plan=served.plan.hash,
            snapshot=_snapshot(views, served.plan, config.clock.now_us()),
            parameters={**_describe_model(served), "leaves": leaves},
            inputs=stored,
            least=-(-len(numbers) // _TASK_CHUNKS),
            secrets={"redis_url": config.redis_url},
        )

    # Within the job: if the disk is full, the results stay for the next command.
    with (
        engine.run("predict", "predicting rows", rows.rows, plan_tasks) as results,
        open_targets(rows, target) as write,
    ):
        numbers = iter(places)
        for result in results:
            part = pq.ParquetFile(storage.local_path(result.objects[0]))
            for i in range(part.num_row_groups):
                write(next(numbers), part.read_row_group(i))
    return sum(result.rows for result in results)


def _describe_model(served: ServedModel) -> dict[str, str]:
    return {"model": served.name, "version": served.version, "package": served.package.digest}


def predict_chunks(task: Task) -> TaskResult:
    """Predict the rows of a task's chunks; the result has them with their predictions."""
    project = open_project(task)
    settings, state = project.settings, project.views.state
    config = ServerConfig(
        repo=Path(task.repo),
        state=state,
        redis_url=settings.redis_url or "",
        clock=open_clock(settings.clock),
        settings=settings,
    )
    with remove_at_end(state.storage.staging_path()) as path:
        done = run_coroutine(_predict_chunks(config, task, path))
        stored = state.storage.put_file(f"{FOLDER}/{task.job}/{uuid.uuid4().hex}.parquet", path)
    return replace(done, objects=(stored,))


async def _predict_chunks(config: ServerConfig, task: Task, target: Path) -> TaskResult:
    rows = 0
    scores, vectors = blake2b(task.name.encode(), digest_size=16), blake2b(digest_size=16)
    with open_target(target) as write:
        async with open_predictor(config, task.parameters["model"], task.parameters["version"]) as batch:
            chunks = enumerate(_read_chunks(config.state.storage, task))
            async with aclosing(batch.predict_chunks(chunks, leaves=task.parameters["leaves"])) as predicted:
                async for _, chunk, scored in predicted:
                    write(add_results(chunk, scored))
                    rows += scored.n
                    vectors.update(_canonical_bytes(scored.matrix))
                    # Some GPUs and libraries round otherwise: such a model has a tolerance.
                    if batch.model.certificate.bit_equal:
                        scores.update(_canonical_bytes(scored.scores))
    # Ids and times are new in each attempt. Vectors may be: they are those of the online store and of the time.
    return TaskResult(rows=rows, digest=scores.hexdigest(), basis=vectors.hexdigest())


def _canonical_bytes(values: Matrix) -> bytes:
    """Return the bytes of an array; all NaNs are equal, because a null has no bits of its own."""
    return np.where(np.isnan(values), np.nan, values).tobytes()


async def _load_model(config: ServerConfig, name: str | None) -> ServedModel:
    async with open_predictor(config, name) as batch:
        return batch.model


def _list_chunks(
    storage: ObjectStorage, source: InputRows, settings: Settings
) -> tuple[tuple[StoredObject, ...], list[int]]:
    """Store the list of Parquet files that workers read; return it, and the number of the file of each chunk."""
    rows = chunk_rows(settings)
    numbers = [number for number, file in enumerate(source.files) for _ in range(-(-file.rows // rows))]
    if not numbers:
        raise source.empty_error()
    body = json.dumps({"rows": rows, "files": source.files}).encode()
    # By its content, which has the time of each file's last change, so that the same command finds the results of an
    # interrupted one.
    name = blake2b(body, digest_size=16).hexdigest()
    return (storage.put(f"{FOLDER}/inputs-{name}/{name}.json", body),), numbers


def _store_chunks(
    storage: ObjectStorage, source: InputRows, settings: Settings
) -> tuple[tuple[StoredObject, ...], list[int]]:
    """Store all rows with a row group per chunk, for workers anywhere; return as ``_list_chunks``."""
    numbers = []
    with remove_at_end(storage.staging_path()) as path:
        with open_target(path) as write:
            for number, chunk in source.read_chunks(chunk_rows(settings)):
                write(chunk)
                numbers.append(number)
        name = digest_file(path)
        return (storage.put_file(f"{FOLDER}/inputs-{name}/{name}.parquet", path),), numbers


def _read_chunks(storage: ObjectStorage, task: Task) -> Iterator[pa.Table]:
    """Yield the chunks of a task, from what ``_list_chunks`` or ``_store_chunks`` has stored."""
    path = storage.local_path(task.inputs[0])
    if path.suffix == ".parquet":
        stored = pq.ParquetFile(path)
        yield from (stored.read_row_group(i) for i in range(task.first, task.end))
        return
    body = json.loads(path.read_bytes())
    rows, start = body["rows"], 0
    for file in (InputFile(*item) for item in body["files"]):
        first, end = max(task.first - start, 0), task.end - start
        if first * rows < min(end * rows, file.rows):
            yield from read_range(file, first * rows, min(end * rows, file.rows), rows)
        start += -(-file.rows // rows)


def _snapshot(views: OfflineViews, plan: FeaturePlan, now_us: int) -> dict[str, Any]:
    """Return the ends of the logs of a plan, and the day: no prediction of an older command is taken over."""
    ends: dict[str, Any] = {view.name: views.log(view).next_seq() for view in plan.views}
    return {"logs": ends | {view.name: dict(views.log_ends(view)) for view in plan.windows}, "day": now_us // _DAY_US}
