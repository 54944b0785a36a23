"""Jobs: run tasks through an executor, and record each result in the database, so that a job continues after a kill."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skewless.contract.errors import StoreError
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.durable import make_folder
from skewless.infra.platform.storage.objects import STAGING, StoredObject
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.engines.port import Executor
from skewless.infra.reads.engines.results import FOLDER
from skewless.infra.reads.engines.task import Task, TaskResult

_KEPT_US = 7 * 86_400_000_000  # results of a killed job, for a job that continues it

_KIND = "task_result"
# Of documents about training sets in the storage; their ``objects`` are below the same folder as results.
TRAINING_SET = "training_set"
OnResult = Callable[[TaskResult], None]


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """The jobs of a project, one of each kind at a time.

    The first recorded result of a task counts. A later attempt must have the same digest, if it has read the same.
    """

    state: ProjectState
    executor: Executor

    @contextmanager
    def run(
        self, kind: str, plan_tasks: Callable[[], Sequence[Task]], on_result: OnResult = lambda _result: None
    ) -> Iterator[list[TaskResult]]:
        """Run the tasks that have no recorded result; yield the results of all, in the order of the tasks.

        At the end of the block, inputs and results are deleted. If the job or the block fails, they stay for a job
        with equal tasks.

        Args:
            kind: of the tasks.
            plan_tasks: stores the inputs of the tasks and returns the tasks; called when no other job of the kind runs.
            on_result: called with each result, as soon as it is recorded.

        Raises:
            StoreError: two attempts of a task have different digests; or the storage or database is unavailable.
            SkewlessError: as the executor.
        """
        # Otherwise a job could delete the inputs of an equal one.
        with self.state.database.hold_lock(f"work {kind}"):
            self._delete_old()
            tasks = plan_tasks()
            results = {task.name: result for task in tasks if (result := self._read(task)) is not None}
            for result in results.values():
                on_result(result)
            # Closed at once, so that an interrupted driver leaves no task running.
            with closing(self.executor.run([task for task in tasks if task.name not in results])) as finished:
                for result in finished:
                    recorded = self.record(result)
                    if result.task not in results:  # a second attempt has the same result
                        results[result.task] = recorded
                        on_result(recorded)
            yield [results[task.name] for task in tasks]
            self._delete(tasks)

    def record(self, result: TaskResult) -> TaskResult:
        """Record a result and return the recorded one, which is that of the first attempt.

        Raises:
            StoreError: the first attempt had the same basis, and another digest.
        """
        body = result.as_dict() | {"at_us": self.state.database.now_us()}
        if self._documents.create(result.task, body):
            return result
        first = _decode(self._documents.get(result.task) or body)
        if first.basis == result.basis and first.digest != result.digest:
            digests = f"{first.digest} and {result.digest}"
            fix = "do not use its results; test the memory of the machines, and report it"
            raise StoreError(f"task {result.task}", "has given two different results", value=digests, fix=fix)
        recorded = {stored.name for stored in first.objects}
        self.state.storage.delete([stored.name for stored in result.objects if stored.name not in recorded])
        return first

    @property
    def _documents(self) -> Documents:
        return Documents(self.state.database, _KIND)

    def _read(self, task: Task) -> TaskResult | None:
        """Return the recorded result of a task; None: there is none, or its objects are gone."""
        body = self._documents.get(task.name)
        if body is None:
            return None
        result = _decode(body)
        try:
            self.state.storage.local_paths(result.objects)
        except StoreError:
            self._documents.delete(task.name)
            return None
        return result

    def _delete(self, tasks: Sequence[Task]) -> None:
        folders = {f"{FOLDER}/{task.job}" for task in tasks}
        # Not those inputs that are files of a log.
        inputs = {stored.name.rpartition("/")[0] for task in tasks for stored in task.inputs}
        folders |= {folder for folder in inputs if folder.startswith(f"{FOLDER}/")}
        for task in tasks:
            self._documents.delete(task.name)
        # All objects, also of attempts whose worker was killed before it could report.
        self.state.storage.delete([item.name for folder in folders for item in self.state.storage.list_objects(folder)])
        for folder in folders:
            shutil.rmtree(self.state / folder, ignore_errors=True)
        delete_spilled(self.state)

    def _delete_old(self) -> None:
        """Delete what killed jobs have left, if nobody has continued them."""
        before_us = self.state.database.now_us() - _KEPT_US
        for name, body in self._documents.list_all().items():
            if body["at_us"] < before_us:
                self._documents.delete(name)
        storage = self.state.storage
        for folder in (FOLDER, STAGING):
            storage.delete([item.name for item in storage.list_objects(folder) if item.modified_us < before_us])


def delete_spilled(state: ProjectState) -> None:
    """Delete the folders of dead processes of this machine, see ``spill_folder``."""
    for folder in (state / "spill").glob(f"{socket.gethostname()}-*"):
        try:
            os.kill(int(folder.name.rpartition("-")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, PermissionError):
            continue


def delete_results(state: ProjectState) -> None:
    """Delete the inputs and results of all jobs, and the training sets in the storage, as an erasure must.

    A job or a training that reads them now fails.

    Raises:
        StoreError: the storage or database is unavailable.
    """
    documents = Documents(state.database, _KIND)
    for name, body in documents.list_all().items():
        for stored in _decode(body).objects:
            state.storage.delete_copy(stored)
        documents.delete(name)
    training_sets = Documents(state.database, TRAINING_SET)
    for name, body in training_sets.list_all().items():
        for stored in body["objects"]:
            state.storage.delete_copy(StoredObject(*stored))
        training_sets.delete(name)
    state.storage.delete([item.name for item in state.storage.list_objects(FOLDER)])


def spill_folder(state: ProjectState) -> Path:
    """Return the folder of this process, one of many workers, for what exceeds DuckDB's memory limit."""
    make_folder(state / "spill")  # DuckDB creates a folder when it spills, but no parents
    return state / "spill" / f"{socket.gethostname()}-{os.getpid()}"


def _decode(body: Mapping[str, Any]) -> TaskResult:
    return TaskResult.from_dict({name: value for name, value in body.items() if name != "at_us"})
