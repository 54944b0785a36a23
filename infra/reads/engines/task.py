"""A task: a piece of work on a range of buckets, and its result. Tasks and results are JSON, and carry no data.

An engine has to bring the text of a task to a worker, call ``execute`` there, and bring the text of the outcome back.
"""

from __future__ import annotations

import json
import resource
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from skewless.contract.columns import digest
from skewless.contract.errors import SkewlessError
from skewless.contract.plain_record import PlainRecord, build_record
from skewless.infra.platform.host.plugins import require_plugin
from skewless.infra.platform.storage.objects import StoredObject


@dataclass(frozen=True, kw_only=True)
class Task:
    """A piece of work: its result depends on nothing but these fields and the accepted log.

    Args:
        kind: an entry point of ``skewless.tasks``, a function that takes the task and returns its result.
        repo: folder of the project, on every machine that works on it.
        plan: hash of the plan.
        snapshot: extent of the logs that count, plain JSON values.
        first, end: buckets, ``first <= bucket < end``.
        parameters: plain JSON values.
        inputs: objects in the storage that it reads, in addition to the log.
        settings: settings of the project that differ from their defaults; not a part of the task's identity.
    """

    kind: str
    repo: str
    plan: str
    snapshot: Mapping[str, Any]
    first: int
    end: int
    parameters: Mapping[str, Any]
    inputs: tuple[StoredObject, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)  # may contain a password

    @cached_property
    def job(self) -> str:
        """Return the identity of the work that this task is a part of; also a folder for its results."""
        # The stamp of an input changes if an interrupted driver stores it again.
        inputs = [(stored.name, stored.digest) for stored in self.inputs]
        return f"{self.kind}-{digest([self.kind, self.plan, self.snapshot, self.parameters, inputs])}"

    @property
    def name(self) -> str:
        """Return the task's identity, which all its attempts share.

        >>> Task(kind="k", repo="/p", plan="", snapshot={}, first=0, end=7, parameters={}).name
        'k-5c228502a36215d8/00000-00007'
        """
        return f"{self.job}/{self.first:05d}-{self.end:05d}"

    def to_json(self) -> str:
        """Return the task as text; ``from_json`` reads it."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the task that a text holds."""
        return build_record(cls, json.loads(text))


@dataclass(frozen=True, kw_only=True)
class TaskResult(PlainRecord):
    """The result of a task.

    Args:
        task: name of the task.
        objects: what it has written to the storage.
        rows: number of rows of the result.
        digest: of the canonical values: bits of floats, nulls, order. All attempts with the same basis have the same.
        basis: digest of what the task has read that can change between two attempts, such as values in the online
            store; empty if its inputs and the log are all that it reads.
        values: further results, such as counts; plain JSON, and small.
        read_s, compute_s, write_s: of tasks that read views: seconds of reading the log, of computing, and of writing
            the result; 0 of others.
        cpu_s: seconds of CPU of the worker's process.
        peak_bytes: largest memory of the worker so far.
    """

    task: str = ""
    objects: tuple[StoredObject, ...] = ()
    rows: int
    digest: str
    basis: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    read_s: float = 0.0
    compute_s: float = 0.0
    write_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0


def run_task(task: Task) -> TaskResult:
    """Run a task in this process and return its result.

    Raises:
        SkewlessError: the task has failed; the error names it.
    """
    work: Callable[[Task], TaskResult] = require_plugin("skewless.tasks", task.kind)
    began = time.process_time()
    try:
        result = work(task)
    except SkewlessError as error:
        raise _name_task(task, error.as_dict()) from error
    return replace(result, task=task.name, cpu_s=time.process_time() - began, peak_bytes=_read_peak())


def execute(text: str | bytes) -> str:
    """Run the task that a text holds, in a worker of an engine; return the outcome, a result or an error, as text."""
    try:
        return json.dumps({"result": run_task(Task.from_json(text)).as_dict()})
    except SkewlessError as error:
        return json.dumps({"error": error.as_dict()})
    except Exception as error:  # noqa: BLE001 - a fault of the program: its driver reports it and its name
        return json.dumps({"fault": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()})


def read_outcome(task: Task, text: str | bytes) -> TaskResult:
    """Return the result that the outcome of a task holds.

    Raises:
        SkewlessError: the task has failed; the error names it.
    """
    outcome = json.loads(text)
    if "result" in outcome:
        return TaskResult.from_dict(outcome["result"])
    if "error" in outcome:
        raise SkewlessError.from_dict(outcome["error"])
    fix = f"report it with the worker's trace:\n{outcome['trace']}"
    raise SkewlessError(f"task {task.name}", f"has failed: {outcome['fault']}", fix=fix)


def _read_peak() -> int:
    """Return the largest memory of this process so far, bytes."""
    with suppress(OSError, ValueError):
        # Unlike getrusage, without the memory of the parent from which the process was started.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of macOS, in bytes


def lost_error(task: Task, attempts: int) -> SkewlessError:
    """Return the error for a task whose workers were all killed."""
    fix = "give the workers more memory, or use fewer of them (setting 'engine_workers')"
    return SkewlessError(f"task {task.name}", f"has lost {attempts} workers, one after another", fix=fix)


def _name_task(task: Task, parts: Mapping[str, Any]) -> SkewlessError:
    named = f"task {task.name}"
    return SkewlessError.from_dict({**parts, "problem": f"{parts['problem'].rstrip('.')} ({named})"})
