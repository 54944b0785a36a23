"""What an import of the plugins does: it loads no windows, and leaves Feast as it is until a project is opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROBE = """
import sys
from feast import FeatureStore

before = vars(FeatureStore).copy()
from skewless.infra.feast_plugins import engine, offline_store, provider

print(*sys.modules)
FeatureStore({others!r})._get_provider()
assert vars(FeatureStore) == before
FeatureStore({ours!r})
assert FeatureStore.push is not before["push"]
print("checked")
"""
WINDOWS = {
    "skewless.infra.feast_plugins.online_windows",
    "skewless.infra.feast_plugins.window_history",
    "skewless.infra.offline.window_join",
    "skewless.infra.online.window_states",
    "skewless.infra.streams.redis_link",
}


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A process that imports the plugins, opens a project with another store, and one with ours."""
    online = "{type: skewless.infra.feast_plugins.online_store.SkewlessOnlineStore, redis_url: 'redis://127.0.0.1:1/0'}"
    folder = tmp_path_factory.mktemp("imports")
    ours, others = folder / "ours", folder / "others"
    for repo, store in ((ours, online), (others, "{type: sqlite, path: o.db}")):
        repo.mkdir()
        text = (
            f"project: p\nregistry: r.db\nprovider: local\nentity_key_serialization_version: 3\nonline_store: {store}\n"
        )
        (repo / "feature_store.yaml").write_text(text)
    probe = PROBE.format(ours=str(ours), others=str(others))
    return subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=False)


def test_windows_are_loaded_when_they_are_asked_for(imports: subprocess.CompletedProcess[str]) -> None:
    loaded = set(imports.stdout.partition("\n")[0].split())
    assert "skewless.infra.feast_plugins.online_store" in loaded
    assert loaded & WINDOWS == set()


def test_feast_is_as_it_was_until_a_project_with_our_store_is_opened(
    imports: subprocess.CompletedProcess[str],
) -> None:
    assert imports.stdout.partition("\n")[2] == "checked\n", imports.stderr
