"""What an import of the plugins does: it loads no windows, and leaves Feast as it is until a project is opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROBE = """
import sys
from skewless.infra.feast_plugins import engine, offline_store, provider
print(*sys.modules)
"""
WINDOWS = {
    "skewless.infra.feast_plugins.online_windows",
    "skewless.infra.feast_plugins.window_history",
    "skewless.infra.offline.window_join",
    "skewless.infra.online.window_states",
    "skewless.infra.streams.redis_link",
}


def test_windows_are_loaded_when_they_are_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "skewless.infra.feast_plugins.online_store" in loaded
    assert loaded & WINDOWS == set()


def test_feast_is_as_it_was_until_a_project_with_our_store_is_opened(tmp_path: Path) -> None:
    online = "{type: skewless.infra.feast_plugins.online_store.SkewlessOnlineStore, redis_url: 'redis://127.0.0.1:1/0'}"
    ours, others = tmp_path / "ours", tmp_path / "others"
    for repo, store in ((ours, online), (others, "{type: sqlite, path: o.db}")):
        repo.mkdir()
        text = (
            f"project: p\nregistry: r.db\nprovider: local\nentity_key_serialization_version: 3\nonline_store: {store}\n"
        )
        (repo / "feature_store.yaml").write_text(text)
    probe = f"""
from feast import FeatureStore
before = vars(FeatureStore).copy()
from skewless.infra.feast_plugins import engine, offline_store, online_store, provider
FeatureStore({str(others)!r})._get_provider()
assert vars(FeatureStore) == before
FeatureStore({str(ours)!r})
assert FeatureStore.push is not before["push"]
print("checked")
"""
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "checked\n", done.stderr
