"""The engine on Ray fulfils the contract of executors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from skewless.infra.reads.engines.port import Executor
from tests.worlds import engine_contract


def test_each_task_has_a_result(engine: Executor) -> None:
    engine_contract.check_results(engine)


def test_an_error_names_its_task(engine: Executor) -> None:
    engine_contract.check_errors(engine)


def test_the_task_of_a_killed_worker_is_tried_again(engine: Executor, tmp_path: Path) -> None:
    engine_contract.check_killed_workers(engine, tmp_path)


def test_closing_the_iterator_ends_running_tasks(engine: Executor, tmp_path: Path) -> None:
    engine_contract.check_cancellation(engine, tmp_path)


def test_nothing_outlives_a_killed_driver(engine: Executor) -> None:  # noqa: ARG001 - skipped without it
    engine_contract.check_killed_driver("ray")


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_a_lost_part_of_a_cluster_changes_no_bit(engine: Executor, tmp_path: Path) -> None:  # noqa: ARG001 - as above
    command = [sys.executable, "-m", "plugins.ray.tests.losses", str(tmp_path)]
    subprocess.run(command, check=True, cwd=engine_contract.ROOT)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("check", [engine_contract.check_killed_reads, engine_contract.check_killed_writes])
def test_killed_workers_change_no_value(
    engine: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Callable[[Executor, Path, int], None]
) -> None:
    # So many kills in a short time need more attempts than users do.
    monkeypatch.setattr("skewless_ray.engine._ATTEMPTS", 100)
    check(engine, tmp_path, 25)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_ten_million_events_have_the_bits_of_one_process(engine: Executor, tmp_path: Path) -> None:
    engine_contract.check_digests(engine, tmp_path, events=10_000_000)
