"""A library and a child that share the batches: which answers, what the child's death costs, how it comes back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from skewless.infra.runtimes.candidates import ScoringTarget, find_candidates
from skewless.infra.runtimes.certification import Reference, certify, reference_rows, same_bits
from skewless.infra.runtimes.child import ChildRuntime
from skewless.infra.runtimes.choice import RuntimeChoice, choose
from skewless.infra.runtimes.port import Matrix, Runtime, Scores
from skewless.infra.runtimes.shared import RuntimeMember, SharedRuntime
from tests.integration.infra.runtimes.children import (
    ENVIRONMENT,
    ONLY_LINUX,
    candidate,
    children_of,
    mapped,
    open_files,
    wait_for,
)
from tests.integration.infra.runtimes.conftest import ModelCase
from tests.worlds.waiting import is_alive, until

pytestmark = ONLY_LINUX

ROWS = np.random.default_rng(1).normal(size=(700, 8))
_FEW = 8
_SLOW_S = 0.2
_PATIENCE_S = 60.0


class SlowLibrary:
    """The library, which takes far too long for many rows."""

    def __init__(self, real: Runtime) -> None:
        self._real = real
        self.runtime_id = real.runtime_id
        self.n_features = real.n_features
        self.n_outputs = real.n_outputs

    def margin(self, matrix: Matrix) -> Scores:
        return self._real.margin(matrix)

    def score(self, matrix: Matrix) -> Scores:
        if len(matrix) > _FEW:
            time.sleep(_SLOW_S)
        return self._real.score(matrix)

    def contributions(self, matrix: Matrix) -> Scores:
        return self._real.contributions(matrix)

    def close(self) -> None:
        """Leave the real one to its owner."""


def reference_of(case: ModelCase) -> Reference:
    rows = reference_rows(case.thresholds, 8, seed=7)
    return Reference(rows, case.raw(rows), case.score(rows))


def chosen(case: ModelCase) -> RuntimeChoice:
    own, reference = SlowLibrary(case.runtime), reference_of(case)
    certificate = certify(own, reference)
    return choose(own, certificate, [candidate("lightgbm", case.model_file)], reference)


@pytest.fixture
def shared_runtime(lightgbm_binary: ModelCase, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedRuntime]:
    """Two runtimes, of which the child gets all batches of more than a few rows; it rests for a moment only."""
    monkeypatch.setattr(RuntimeMember, "rest_s", 0.01)
    choice = chosen(lightgbm_binary)
    assert isinstance(choice.runtime, SharedRuntime)
    assert [(item.role, item.certificate and item.certificate.bit_equal) for item in choice.trials] == [
        ("own", True),
        ("shared", True),
    ]
    yield choice.runtime
    choice.runtime.close()
    for process in children_of(os.getpid()):
        wait_for(process)


def child_of(shared_runtime: SharedRuntime) -> int:
    runtime = shared_runtime.members[1].runtime
    assert isinstance(runtime, ChildRuntime)
    assert runtime._process is not None
    return runtime._process.pid


def until_back(shared_runtime: SharedRuntime, lost: Runtime) -> None:
    """Return once another runtime is there for one that was lost."""
    second = shared_runtime.members[1]
    until(lambda: second.runtime is not lost and second.is_ready)


def test_few_rows_go_to_the_library_and_many_to_the_child(
    shared_runtime: SharedRuntime, lightgbm_binary: ModelCase
) -> None:
    own, second = shared_runtime.members
    assert shared_runtime.runtime_id == f"{lightgbm_binary.runtime.runtime_id}|{second.runtime_id}"
    assert second.runtime_id.startswith("nvforest-cpu-")
    for count in (1, 4, 64, 700):
        assert same_bits(shared_runtime.score(ROWS[:count]), lightgbm_binary.score(ROWS[:count])).all()
    assert (own.batches, own.rows) == (2, 5)
    assert (second.batches, second.rows, second.failures) == (2, 764, 0)
    assert shared_runtime.contributions(ROWS[:2]).shape == (2, 9)
    assert isinstance(second.runtime, ChildRuntime)
    assert second.runtime.timeout_s == max(1.0, 20 * second.calibration.seconds[-1])  # from what it took


def test_a_killed_child_costs_no_answer_and_comes_back_once(
    shared_runtime: SharedRuntime, lightgbm_binary: ModelCase
) -> None:
    expected = lightgbm_binary.score(ROWS)
    over = threading.Event()

    def work(seed: int) -> int:
        answered, chance = 0, np.random.default_rng(seed)
        while not over.is_set():
            count = int(chance.integers(1, len(ROWS)))
            assert same_bits(shared_runtime.score(ROWS[:count]), expected[:count]).all()
            answered += 1
        return answered

    second = shared_runtime.members[1]
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(work, seed) for seed in range(4)]
        for _ in range(2):
            lost, process, answered = second.runtime, child_of(shared_runtime), second.batches
            while second.batches < answered + 5:
                time.sleep(0.002)
            os.kill(process, signal.SIGKILL)
            wait_for(process)
            until_back(shared_runtime, lost)
            assert child_of(shared_runtime) != process
            answered = second.batches
            while second.batches < answered + 5:
                time.sleep(0.002)
        over.set()
        assert all(call.result() > 5 for call in calls)
    assert 2 <= second.failures <= 8
    assert children_of(os.getpid()) == {child_of(shared_runtime)}


def test_a_child_that_hangs_is_given_up_after_its_time(
    shared_runtime: SharedRuntime, lightgbm_binary: ModelCase
) -> None:
    runtime = shared_runtime.members[1].runtime
    assert isinstance(runtime, ChildRuntime)
    process = child_of(shared_runtime)
    runtime.timeout_s = 0.05
    os.kill(process, signal.SIGSTOP)
    assert same_bits(shared_runtime.score(ROWS), lightgbm_binary.score(ROWS)).all()
    wait_for(process)
    until_back(shared_runtime, runtime)
    assert same_bits(shared_runtime.score(ROWS), lightgbm_binary.score(ROWS)).all()
    assert (shared_runtime.members[1].batches, shared_runtime.members[1].failures) == (1, 1)


def test_loading_and_closing_again_leaves_nothing(lightgbm_binary: ModelCase) -> None:
    chosen(lightgbm_binary).runtime.close()
    files, memories = open_files(), mapped()
    choice = chosen(lightgbm_binary)
    assert isinstance(choice.runtime, SharedRuntime)
    process = child_of(choice.runtime)
    assert is_alive(process)
    choice.runtime.close()
    wait_for(process)
    assert open_files() <= files
    assert mapped() <= memories
    for thread in threading.enumerate():
        if thread.name.startswith("runtime-"):
            thread.join(_PATIENCE_S)
            assert not thread.is_alive()


def test_what_is_slower_ends_at_once(lightgbm_binary: ModelCase) -> None:
    """The library alone is faster than any child on a few trees and few rows; a reader of large files may differ."""
    reference = reference_of(lightgbm_binary)

    class Free(SlowLibrary):
        def score(self, matrix: Matrix) -> Scores:
            return np.zeros(len(matrix))

    own = Free(lightgbm_binary.runtime)
    certificate = certify(lightgbm_binary.runtime, reference)
    choice = choose(own, certificate, [candidate("lightgbm", lightgbm_binary.model_file)], reference)
    assert choice.runtime is own
    assert [item.role for item in choice.trials] == ["own", "slower"]
    for process in children_of(os.getpid()):
        wait_for(process)


def test_a_place_opens_the_child_with_what_it_is_given(
    lightgbm_binary: ModelCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skewless.infra.runtimes.nvforest.is_installed", lambda: True)
    place = ScoringTarget(second="cpu", child_environment=ENVIRONMENT)
    (only,) = find_candidates("lightgbm", "auto", Path(lightgbm_binary.model_file), place)
    assert only.open is not None
    runtime = only.open()
    assert same_bits(runtime.score(ROWS), lightgbm_binary.score(ROWS)).all()
    runtime.close()
