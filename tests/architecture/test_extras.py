"""The extras: where the line between a server and everything else goes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from skewless.contract.extras import MODULES
from tests.worlds.requirements import (
    ROOT,
    UNUSED_BY_SERVER,
    closure_of,
    locked_in,
    main_of_a_server,
    requirements_of,
)

IMAGE = ROOT / "infra" / "deploy" / "image"
CONNECTORS = ("cpu", "postgres", "cloud", "kafka", "grpc", "oidc", "otel")


@pytest.mark.parametrize("extra", sorted(MODULES))
def test_the_fix_for_a_missing_module_knows_the_extras(extra: str) -> None:
    names = {requirement.name for requirement in requirements_of(extra)} - {"skewless"}
    assert {name.replace("-", "_") for name in names} == MODULES[extra]


def test_a_server_needs_no_library_of_jobs() -> None:
    wanted = closure_of(requirements_of("", "serve"))
    assert wanted & {"feast", "great-expectations", "pandas", "duckdb", "sqlalchemy", "dask"} == set()
    assert wanted & {"scipy"} == {"scipy"}, "LightGBM no longer requires scipy: let the Makefile go without it"


def test_the_lock_of_the_server_has_what_it_needs() -> None:
    wanted = closure_of(requirements_of("", "serve", *CONNECTORS))
    locked = {canonicalize_name(name) for name in locked_in(IMAGE / "server.txt")}
    assert wanted - locked == UNUSED_BY_SERVER & wanted
    assert locked & UNUSED_BY_SERVER == set()


@pytest.mark.parametrize("lock", ["server.txt", "jobs.txt", "build.txt"])
def test_the_images_have_the_versions_that_are_tested(lock: str) -> None:
    pins = set(re.findall(r"^[a-z0-9._-]+==[^ ]+", (IMAGE / lock).read_text(encoding="utf-8"), re.MULTILINE))
    tested = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    assert pins - set(re.findall(r"^[a-z0-9._-]+==[^ ]+", tested, re.MULTILINE)) == set()


def test_a_command_that_needs_another_extra_names_it(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: p\nregistry: r.db\nprovider: local\n")
    command = [sys.executable, "-c", main_of_a_server(), "apply", "--repo", str(tmp_path), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["problem"]) == (10, "is not installed")
    assert error["fix"] == "pip install 'skewless[project]'"
