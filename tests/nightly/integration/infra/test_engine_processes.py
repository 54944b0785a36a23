"""The engine of this machine: results, errors, killed workers, cancellation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.contract.errors import DefinitionError, SkewlessError, SourceError
from skewless.contract.settings import Settings
from skewless.infra.reads.engines.port import open_executor
from skewless.infra.reads.engines.processes import ProcessExecutor
from skewless.infra.reads.engines.task import Task, TaskResult
from tests.worlds.tasks import make_tasks
from tests.worlds.waiting import is_alive

ROOT = Path(__file__).parents[4]
DRIVER = """
import sys
from skewless.infra.reads.engines.processes import ProcessExecutor
from tests.worlds.tasks import make_tasks
results = ProcessExecutor(2).run(make_tasks("count", 2))
for result in results: print(result.values["pid"], flush=True)
list(ProcessExecutor(2).run(make_tasks("count", 2, seconds=600)))
"""


@pytest.fixture
def executor() -> Iterator[ProcessExecutor]:
    executor = ProcessExecutor(2)
    yield executor
    executor.close()


def test_a_task_and_its_result_survive_json() -> None:
    (task,) = make_tasks("count", 1, note="x")
    assert Task.from_json(task.to_json()) == task
    result = TaskResult(task="t", rows=3, digest="d", values={"n": 1}, read_s=0.5)
    assert TaskResult.from_dict(result.as_dict()) == result


def test_settings_are_not_a_part_of_the_identity() -> None:
    (one,) = make_tasks("count", 1)
    other = Task.from_json(one.to_json().replace('"settings": {}', '"settings": {"threads": 1}'))
    assert other.settings
    assert other.name == one.name


def test_all_tasks_run_in_other_processes(executor: ProcessExecutor) -> None:
    results = list(executor.run(make_tasks("count", 5)))
    assert sorted(result.rows for result in results) == list(range(5))
    assert os.getpid() not in {result.values["pid"] for result in results}
    assert all(result.peak_bytes > 1_000_000 for result in results)


def test_workers_stay_for_the_next_tasks(executor: ProcessExecutor) -> None:
    first, second = ({r.values["pid"] for r in executor.run(make_tasks("count", 4, seconds=0.1))} for _ in range(2))
    assert first == second


def test_one_worker_is_this_process() -> None:
    results = list(ProcessExecutor(1).run(make_tasks("count", 2)))
    assert {result.values["pid"] for result in results} == {os.getpid()}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_keeps_its_class_and_names_the_task(workers: int) -> None:
    tasks = make_tasks("reject", 3)
    executor = ProcessExecutor(workers)
    with pytest.raises(SourceError) as caught:
        list(executor.run(tasks))
    executor.close()
    assert caught.value.sentence() == (f"file 'x': is corrupt (task {tasks[1].name}) (got 7). Fix: restore it")


def test_a_fault_of_the_program_names_the_task_and_has_the_trace(executor: ProcessExecutor) -> None:
    with pytest.raises(SkewlessError, match="ZeroDivisionError: of a test") as caught:
        list(executor.run(make_tasks("crash", 1)))
    assert "00000-00001" in str(caught.value)
    assert "tests/worlds/tasks.py" in caught.value.fix


def test_the_task_of_a_killed_worker_is_tried_again(executor: ProcessExecutor, tmp_path: Path) -> None:
    results = list(executor.run(make_tasks("die_once", 3, folder=str(tmp_path))))
    assert sorted(result.rows for result in results) == [0, 1, 2]


def test_a_task_that_kills_each_worker_fails(executor: ProcessExecutor) -> None:
    with pytest.raises(SkewlessError, match="has lost 5 workers"):
        list(executor.run(make_tasks("die", 1)))


def test_closing_the_iterator_ends_the_workers_of_running_tasks(executor: ProcessExecutor) -> None:
    pids = {result.values["pid"] for result in executor.run(make_tasks("count", 2, seconds=0.2))}
    tasks = [*make_tasks("count", 1), *make_tasks("count", 2, seconds=600)]
    results = executor.run(tasks)
    next(results)
    results.close()
    assert sum(is_alive(pid) for pid in pids) <= 1


def test_an_idle_worker_that_was_killed_is_replaced(executor: ProcessExecutor) -> None:
    list(executor.run(make_tasks("count", 2, seconds=0.2)))
    for pid in executor.pids():
        os.kill(pid, signal.SIGKILL)
    assert len(list(executor.run(make_tasks("count", 2)))) == 2


def test_no_worker_outlives_a_killed_driver() -> None:
    command = [sys.executable, "-c", DRIVER]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        pids = [int(driver.stdout.readline()) for _ in range(2)]
        driver.kill()
    wait_for_end(pids)


def wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_engine_that_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(DefinitionError, match=r"engine 'dask': is not installed. Fix: pip install 'skewless\[dask\]'"):
        open_executor("dask", Settings())
