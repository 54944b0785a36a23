"""A child that is killed, hangs or is closed; a process that is killed; nothing is left of either."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import skewless.infra.runtimes.child
from skewless.contract.errors import PackageError
from skewless.infra.runtimes.certification import same_bits
from skewless.infra.runtimes.child import ChildLostError, ChildRuntime
from skewless.infra.runtimes.cuda import driver
from skewless.infra.runtimes.port import Scores
from tests.integration.infra.runtimes.children import (
    ENVIRONMENT,
    ONLY_LINUX,
    child_of,
    children_of,
    mapped,
    open_child,
    open_files,
    wait_for,
)
from tests.integration.infra.runtimes.conftest import ModelCase, xgboost_case
from tests.worlds.waiting import is_alive

pytestmark = [ONLY_LINUX]
NO_GPU = pytest.mark.skipif(driver().problem is None, reason="there is a GPU")

ROOT = Path(__file__).parents[4]
ROWS = np.random.default_rng(1).normal(size=(50, 8))
PARENT = """
import sys, time
from pathlib import Path
from skewless.infra.runtimes.child import ChildRuntime
child = ChildRuntime("lightgbm", Path(sys.argv[1]), "cpu", environment={"PYTHONPATH": sys.argv[2]})
print(child._process.pid, flush=True)
time.sleep(600)
"""


def pid(child: ChildRuntime) -> int:
    assert child._process is not None
    return child._process.pid


def test_killed_before_a_call(lightgbm_binary: ModelCase) -> None:
    with child_of("lightgbm", lightgbm_binary.model_file) as child:
        process = pid(child)
        os.kill(process, signal.SIGKILL)
        wait_for(process)
        for _ in range(2):
            with pytest.raises(ChildLostError):
                child.score(ROWS)
        assert child._process is None


def test_killed_in_the_middle_of_a_call(lightgbm_binary: ModelCase) -> None:
    with child_of("lightgbm", lightgbm_binary.model_file) as child, ThreadPoolExecutor(2) as pool:
        process = pid(child)
        os.kill(process, signal.SIGSTOP)
        calls = [pool.submit(child.score, ROWS) for _ in range(2)]
        while not child._lock.locked():
            time.sleep(0.001)
        os.kill(process, signal.SIGKILL)
        for call in calls:
            assert isinstance(call.exception(timeout=60), ChildLostError)
    wait_for(process)


def test_too_slow_an_answer_ends_the_child(lightgbm_binary: ModelCase) -> None:
    with child_of("lightgbm", lightgbm_binary.model_file) as child:
        process = pid(child)
        assert same_bits(child.score(ROWS), lightgbm_binary.score(ROWS)).all()
        os.kill(process, signal.SIGSTOP)
        child.timeout_s = 0.05
        with pytest.raises(ChildLostError, match="timed out"):
            child.score(ROWS)
        wait_for(process)


@pytest.fixture(scope="module")
def lasting_child(lightgbm_binary: ModelCase) -> Iterator[ChildRuntime]:
    """A child that no test ends."""
    with child_of("lightgbm", lightgbm_binary.model_file, timeout_s=30.0) as child:
        yield child


def test_many_rows_may_take_longer_in_proportion(lasting_child: ChildRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    given, real = list[float](), lasting_child._receive

    def receive(timeout_s: float) -> object:
        given.append(timeout_s)
        return real(timeout_s)

    monkeypatch.setattr(lasting_child, "_receive", receive)
    for count in (1, 4_096, 8_192):
        lasting_child.score(np.zeros((count, 8)))
    assert given == [30.0, 30.0, 60.0]


def test_what_is_sent_to_all_processes_of_a_terminal_does_not_end_it(
    lightgbm_binary: ModelCase, lasting_child: ChildRuntime
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid(lasting_child), number)
    assert same_bits(lasting_child.score(ROWS), lightgbm_binary.score(ROWS)).all()


def test_closing_leaves_no_file_no_process_no_memory(lightgbm_binary: ModelCase) -> None:
    others = children_of(os.getpid())
    open_child("lightgbm", lightgbm_binary.model_file).close()
    files, memories = open_files(), mapped()
    child = open_child("lightgbm", lightgbm_binary.model_file)
    process = pid(child)
    child.score(np.zeros((5_000, 8)))
    assert open_files() > files
    assert mapped() > memories
    child.close()
    child.close()
    wait_for(process)
    assert open_files() <= files
    assert mapped() <= memories
    with pytest.raises(ChildLostError, match="closed"):
        child.margin(ROWS)
    assert children_of(os.getpid()) == others


def test_a_child_that_does_not_end_at_once_holds_nobody_up(
    lightgbm_binary: ModelCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go, over = threading.Event(), threading.Event()

    class Stuck:
        """A process in which a driver sits."""

        def __init__(self, real: subprocess.Popen[bytes]) -> None:
            self._real = real
            self.pid = real.pid

        def kill(self) -> None:
            self._real.kill()

        def wait(self) -> int:
            assert let_go.wait(60)
            code = self._real.wait()
            over.set()
            return code

    real = skewless.infra.runtimes.child._start
    monkeypatch.setattr(skewless.infra.runtimes.child, "_start", lambda *given: Stuck(real(*given)))
    open_child("lightgbm", lightgbm_binary.model_file).close()
    assert not over.is_set()
    let_go.set()
    assert over.wait(60)


def test_without_nvforest_it_says_so(lightgbm_binary: ModelCase) -> None:
    files = open_files()
    with pytest.raises(PackageError, match="No module named 'nvforest'"):
        ChildRuntime("lightgbm", lightgbm_binary.model_file, "cpu")
    assert open_files() <= files


@NO_GPU
def test_where_no_gpu_is_it_says_so(tmp_path: Path) -> None:
    """XGBoost's own code needs cupy and a device, and this model and file are all right."""
    case = xgboost_case(tmp_path, {"objective": "binary:logistic"})
    files = open_files()
    with pytest.raises(PackageError, match="cannot be opened on a GPU"):
        ChildRuntime("xgboost", case.model_file, "gpu", kind="xgboost-cuda")
    with pytest.raises(PackageError, match="cannot be opened by nvForest"):
        ChildRuntime("xgboost", case.model_file, "gpu", environment=ENVIRONMENT)
    assert open_files() <= files
    case.runtime.close()


def test_where_no_process_can_be_started_it_says_so(
    lightgbm_binary: ModelCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = open_files()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(PackageError, match="cannot be opened in a child process"):
        open_child("lightgbm", lightgbm_binary.model_file)
    assert open_files() <= files


def test_a_module_in_the_working_directory_is_not_taken(
    lightgbm_binary: ModelCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json.py", "socket.py", "infra.py"):
        (tmp_path / name).write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    with child_of("lightgbm", lightgbm_binary.model_file) as child:
        assert same_bits(child.score(ROWS), lightgbm_binary.score(ROWS)).all()


@pytest.mark.parametrize("opens", [True, False])
def test_it_ends_with_the_process_that_started_it(lightgbm_binary: ModelCase, opens: bool) -> None:  # noqa: FBT001
    """Also where that process is killed while the child still opens the model."""
    command = [sys.executable, "-c", PARENT, str(lightgbm_binary.model_file), ENVIRONMENT["PYTHONPATH"]]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        if opens:
            children = {int(parent.stdout.readline())}
        else:
            while not (children := children_of(parent.pid)):
                time.sleep(0.005)
        assert all(map(is_alive, children))
        parent.kill()
        for child in children:
            wait_for(child)
        assert parent.stderr.read() == ""


def test_two_children_do_not_keep_each_other(lightgbm_binary: ModelCase) -> None:
    """A child that starts later holds no end of the first one's connection."""
    first = open_child("lightgbm", lightgbm_binary.model_file)
    with child_of("lightgbm", lightgbm_binary.model_file) as second:
        process = pid(first)
        first._connection.close()
        wait_for(process)
        scores: Scores = second.score(ROWS)
        assert same_bits(scores, lightgbm_binary.score(ROWS)).all()
    first.close()
