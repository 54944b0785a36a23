"""The engine on Spark fulfils the contract of executors."""

from __future__ import annotations

import subprocess
import sys
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
    engine_contract.check_killed_driver("spark")


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_a_lost_part_of_a_cluster_changes_no_bit(engine: Executor, tmp_path: Path) -> None:  # noqa: ARG001 - as above
    command = [sys.executable, "-m", "plugins.spark.tests.losses", str(tmp_path)]
    subprocess.run(command, check=True, cwd=engine_contract.ROOT)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("check", ["check_killed_reads", "check_killed_writes"])
def test_killed_workers_change_no_value(check: str, tmp_path: Path) -> None:
    pytest.importorskip("pyspark", reason="needs Spark: make setup-spark")
    command = [sys.executable, "-m", "plugins.spark.tests.kills", check, str(tmp_path), "25"]
    subprocess.run(command, check=True, cwd=engine_contract.ROOT)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_ten_million_events_have_the_bits_of_one_process(engine: Executor, tmp_path: Path) -> None:
    engine_contract.check_digests(engine, tmp_path, events=10_000_000)
