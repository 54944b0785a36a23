"""Projects without windows do not load what reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROBE = """
import sys
import infra.feast_plugins.engine, infra.feast_plugins.offline_store, infra.feast_plugins.provider
print(*sys.modules)
"""
WINDOWS = {
    "infra.feast_plugins.online_windows",
    "infra.feast_plugins.pushed_events",
    "infra.feast_plugins.window_history",
    "infra.offline.window_join",
    "infra.online.window_states",
    "infra.streams.senders",
}


def test_windows_are_loaded_when_they_are_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "infra.feast_plugins.online_store" in loaded
    assert loaded & WINDOWS == set()
