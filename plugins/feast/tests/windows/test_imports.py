"""An import of the plugins loads no windows, and leaves Feast unchanged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PROBE = """
import sys
from feast import FeatureStore

before = vars(FeatureStore).copy()
from skewless_feast import engine, feature_store, offline_store, provider

print(*sys.modules)
FeatureStore({repo!r}).provider
assert vars(FeatureStore) == before
print("checked")
"""
WINDOWS = {
    "skewless_feast.online_windows",
    "skewless_feast.window_history",
    "skewless.infra.reads.offline.window_join",
    "skewless.infra.reads.online.window_states",
    "skewless.infra.ingest.streams.redis_link",
}


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A process that imports the plugins, and opens a project with our store."""
    repo = tmp_path_factory.mktemp("imports")
    (repo / "feature_store.yaml").write_text(
        "project: p\nregistry: r.db\nprovider: local\nentity_key_serialization_version: 3\n"
        "online_store: {type: skewless_feast.online_store.SkewlessOnlineStore}\n"
    )
    probe = PROBE.format(repo=str(repo))
    return subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=False)


def test_windows_are_loaded_when_they_are_asked_for(imports: subprocess.CompletedProcess[str]) -> None:
    loaded = set(imports.stdout.partition("\n")[0].split())
    assert "skewless_feast.online_store" in loaded
    assert loaded & WINDOWS == set()


def test_no_method_of_feast_is_replaced(imports: subprocess.CompletedProcess[str]) -> None:
    assert imports.stdout.partition("\n")[2] == "checked\n", imports.stderr
