"""Projects without windows do not load what reads them."""

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
    "skewless.infra.feast_plugins.pushed_events",
    "skewless.infra.feast_plugins.window_history",
    "skewless.infra.offline.window_join",
    "skewless.infra.online.window_states",
    "skewless.infra.streams.senders",
}


def test_windows_are_loaded_when_they_are_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "skewless.infra.feast_plugins.online_store" in loaded
    assert loaded & WINDOWS == set()
