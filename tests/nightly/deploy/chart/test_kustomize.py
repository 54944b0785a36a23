"""Kustomize builds what Helm renders: of the same values, and of an overlay that changes some of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.nightly.deploy.chart.policies import violations
from tests.nightly.deploy.chart.release import Object, workloads
from tools.chart import KUSTOMIZE, ROOT, VALUES, Chart, read_values, release_text

# The values that mean the same as infra/deploy/kustomize/overlays/production.
PRODUCTION: dict[str, Any] = {
    "images": {
        "server": "registry.example.com/shop/server:0.1.1",
        "jobs": "registry.example.com/shop/jobs:0.1.1",
    },
    "scheduler": {"replicas": 2},
    "server": {"drainSeconds": 20, "resources": {"limits": {"memory": "2Gi"}}},
}


def build(folder: Path) -> list[Object]:
    """Return the objects that Kustomize builds."""
    program = shutil.which("kustomize")
    if program is None:
        pytest.skip("no kustomize on this machine: `apt-get install kustomize` brings it")
    said = subprocess.run([program, "build", str(folder)], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return list(yaml.safe_load_all(said.stdout))


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    """Return the objects; the order of variables means nothing."""
    for workload in workloads(objects):
        workload.container["env"].sort(key=lambda entry: entry["name"])
    return {(body["kind"], body["metadata"]["name"]): body for body in objects}


def merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return values with changes, as Helm merges two files."""
    merged = {
        name: merge(values[name], change) if isinstance(change, dict) and name in values else change
        for name, change in changes.items()
    }
    return {**values, **merged}


@pytest.mark.parametrize("name", VALUES)
def test_kustomize_builds_what_helm_renders(chart: Chart, name: str) -> None:
    assert by_name(build(KUSTOMIZE / name)) == by_name(chart.render(read_values(name)))
    assert (KUSTOMIZE / name / "release.yaml").read_text(encoding="utf-8") == release_text(chart, name), (
        "run `python -m tools.chart`"
    )


def test_an_overlay_is_equal_to_the_values_that_mean_the_same(chart: Chart) -> None:
    objects = build(KUSTOMIZE / "overlays" / "production")
    assert by_name(objects) == by_name(chart.render(merge(read_values("small"), PRODUCTION), namespace="shop-prod"))
    assert violations(objects) == []


def test_a_release_is_rendered_without_helm(chart: Chart) -> None:
    command = [sys.executable, "-m", "tools.chart", "many-tenants", "shop", "tenant-7"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert list(yaml.safe_load_all(said.stdout)) == chart.render(read_values("many-tenants"), "shop", "tenant-7")
