"""What an import may cost: each process loads only what its work needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OFFLINE = {"catboost", "dask", "feast", "great_expectations", "lightgbm", "pandas", "scipy", "sqlalchemy", "xgboost"}
PROBE = """
import importlib, json, sys
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded_by(*names: str) -> set[str]:
    """Return the modules that a fresh process loads when it imports some modules."""
    command = [sys.executable, "-c", PROBE, *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def packages(modules: set[str]) -> set[str]:
    """Return the top-level packages of modules."""
    return {name.partition(".")[0] for name in modules}


def test_servers_load_no_offline_library() -> None:
    assert packages(loaded_by("skewless.serving.app", "skewless_control_room.app")) & OFFLINE == set()


def test_the_server_loads_opentelemetry_only_if_it_is_switched_on() -> None:
    modules = loaded_by("skewless.serving.process")
    assert packages(modules) & {"google", "urllib3"} == set()
    # FastAPI imports the API, which does nothing alone.
    assert {name for name in modules if name.startswith(("opentelemetry.sdk", "opentelemetry.proto"))} == set()


def test_the_package_loads_the_standard_library_alone() -> None:
    modules = loaded_by("skewless")
    assert {name for name in modules if name.startswith("skewless.")} == {"skewless.version"}
    assert packages(modules) - {"skewless"} - sys.stdlib_module_names == set()


def test_the_command_line_loads_no_data_library() -> None:
    heavy = OFFLINE | {"duckdb", "fastapi", "numpy", "pyarrow", "uvicorn"}
    assert packages(loaded_by("skewless.cli")) & heavy == set()


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("skewless.client", {"aiohttp", "asyncio", "ssl", "urllib3"}),
        ("skewless.client.sync_client", {"aiohttp", "asyncio"}),
        ("skewless.client.async_client", {"urllib3"}),
    ],
)
def test_a_client_loads_its_own_library_alone(module: str, others: set[str]) -> None:
    heavy = OFFLINE | {"fastapi", "numpy", "pyarrow", "pydantic", "uvicorn"}
    assert packages(loaded_by(module)) & (heavy | others) == set()


def test_the_contract_loads_the_standard_library_alone() -> None:
    modules = loaded_by(*(f"skewless.contract.{name}" for name in ("errors", "dtypes", "spec", "plan")))
    assert packages(modules) - {"skewless"} - sys.stdlib_module_names == set()
