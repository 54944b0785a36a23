"""An error of Spark names its cause: first with a stand-in for Spark, which may be absent, then with Spark itself."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import pytest

from skewless.contract.errors import StoreError
from tests.worlds.tasks import make_tasks

_SOURCE = Path(__file__).parents[1] / "src/skewless_spark/engine.py"
_GATEWAY = "[JAVA_GATEWAY_EXITED] Java gateway process exited before sending its port number."
_OTHER_PYTHON = """An exception was thrown from the Python worker:
Task 0 in stage 0.0 failed 5 times, most recent failure:
pyspark.errors.exceptions.base.PySparkRuntimeError: [PYTHON_VERSION_MISMATCH] Python in worker has different version:
"""
_DRIVER = """
import sys
from skewless.contract.errors import StoreError
from skewless.contract.settings import Settings
from skewless.infra.reads.engines.port import open_executor
from tests.worlds.tasks import make_tasks
try:
    executor = open_executor("spark", Settings(engine_address=sys.argv[1] or None, engine_workers=2))
    list(executor.run(make_tasks("count", 1)))
except StoreError as error:
    print("ERROR", error)
"""
# Spark's worker compares its version with the driver's: this one claims another.
_OTHER_WORKER = """#!/bin/sh
exec {python} -c '
import runpy, sys, types
import pyspark.worker_util as util
sys.argv = sys.argv[1:]
util.sys = types.SimpleNamespace(**{{**vars(sys), "version_info": (3, 9, 1)}})
runpy.run_module(sys.argv[sys.argv.index("-m") + 1], run_name="__main__")
' "$0" "$@"
"""


class SparkError(Exception):
    """As Spark's."""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the engine, for which Spark is a stand-in."""
    protocol, errors = MagicMock(Py4JError=SparkError), MagicMock(PySparkException=SparkError)
    session = MagicMock(**{"getActiveSession.return_value": None})
    pyspark = MagicMock(__file__="pyspark/__init__.py", errors=errors, sql=MagicMock(SparkSession=session))
    modules = {"pyspark": pyspark, "pyspark.errors": errors, "pyspark.sql": pyspark.sql}
    for name, value in {**modules, "py4j": MagicMock(), "py4j.protocol": protocol}.items():
        monkeypatch.setitem(sys.modules, name, value)
    for name in ("PYSPARK_PYTHON", "SPARK_HOME", "SPARK_LOCAL_IP"):
        monkeypatch.setenv(name, "")  # what the engine sets ends with the test
    monkeypatch.delenv("JAVA_HOME", raising=False)
    spec = spec_from_file_location("engine_of_spark", _SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_java(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "java").touch()
    (folder / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("master", "error", "message"),
    [
        (
            "spark://head:7077",
            SparkError("An error occurred while calling None.SparkSession.\n: Cannot call methods on a stopped one"),
            (
                "Spark master spark://head:7077: cannot be reached. Fix: start it, or correct the setting "
                "'engine_address'; Spark's own messages above have the reason"
            ),
        ),
        (
            "nonsense",
            SparkError(_GATEWAY),
            (
                "Spark master nonsense: cannot be reached. Fix: start it, or correct the setting "
                "'engine_address'; Spark's own messages above have the reason"
            ),
        ),
        (
            None,
            SparkError(_GATEWAY),
            f"Spark of this machine: cannot be started: {_GATEWAY} Fix: read Spark's own messages above",
        ),
    ],
)
def test_a_machine_with_java_is_not_told_to_install_it(
    module: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    master: str | None,
    error: Exception,
    message: str,
) -> None:
    make_java(tmp_path, monkeypatch)
    for step in ("master", "config"):
        getattr(module.SparkSession.builder.appName.return_value, step).return_value = module.SparkSession.builder
    module.SparkSession.builder.config.return_value = module.SparkSession.builder
    module.SparkSession.builder.getOrCreate.side_effect = error
    with pytest.raises(StoreError) as caught:
        module.SparkExecutor(master)
    assert caught.value.sentence() == message


@pytest.mark.parametrize("home", [None, "/no/such/java"])
def test_a_machine_without_java_is(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    if home is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        make_java(tmp_path, monkeypatch)
        monkeypatch.setenv("JAVA_HOME", home)
    module.SparkSession.builder.appName.return_value.master.return_value = module.SparkSession.builder
    module.SparkSession.builder.getOrCreate.side_effect = SparkError(_GATEWAY)
    with pytest.raises(StoreError, match=r"needs Java, and \S+ has none. Fix: install Java 17 or later") as caught:
        module.SparkExecutor("spark://head:7077")
    assert (home or "PATH") in str(caught.value)


def test_another_python_of_the_workers_is_named_with_that_of_the_driver(module: ModuleType) -> None:
    module.SparkSession.builder.appName.return_value.master.return_value = module.SparkSession.builder
    context = module.SparkSession.builder.getOrCreate.return_value.sparkContext
    context.defaultParallelism, context.accumulator.return_value.value = 2, []
    text = f"{_OTHER_PYTHON.rstrip()} 3.9 than that in driver: 3.11, PySpark cannot run with different minor versions."
    context.parallelize.return_value.foreach.side_effect = SparkError(text)
    with pytest.raises(StoreError) as caught:
        list(module.SparkExecutor("spark://head:7077").run(make_tasks("count", 1)))
    assert caught.value.sentence() == (
        "Spark workers: have Python 3.9, and this process has Python 3.11. "
        "Fix: set PYSPARK_PYTHON to a Python 3.11 that all workers have, or run the command with 3.9"
    )


@pytest.mark.timeout(180)
def test_spark_itself_says_so(tmp_path: Path) -> None:
    pytest.importorskip("pyspark", reason="needs Spark: make setup-spark")
    python = tmp_path / "python"
    python.write_text(_OTHER_WORKER.format(python=sys.executable))
    python.chmod(0o755)
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    output = _drive("", PYSPARK_PYTHON=str(python))
    assert f"ERROR Spark workers: have Python 3.9, and this process has Python {own}" in output


@pytest.mark.timeout(180)
@pytest.mark.parametrize("master", ["nonsense", "spark://127.0.0.1:1"])
def test_spark_itself_names_a_missing_master(master: str) -> None:
    pytest.importorskip("pyspark", reason="needs Spark: make setup-spark")
    output = _drive(master)
    assert f"ERROR Spark master {master}: cannot be reached" in output
    assert "Java" not in output


def _drive(master: str, **environment: str) -> str:
    command, root = [sys.executable, "-c", _DRIVER, master], Path(__file__).parents[3]
    run = subprocess.run(
        command,
        check=True,
        cwd=root,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        timeout=150,
    )
    return "\n".join(line for line in run.stdout.splitlines() if line.startswith("ERROR"))
