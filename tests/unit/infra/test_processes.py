"""A server on this machine is known by its beat, and bulk work leaves it the processor."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from skewless.infra.host.processes import SILENT_S, Kind, ProcessRecord, is_served_here, run_behind_servers
from skewless.infra.storage.project_state import ProjectState


def beat(state: Path, kind: Kind, **changes: Any) -> None:  # noqa: ANN401 - of any field
    ProcessRecord(ProjectState(state), kind).send_heartbeat("plan", {})
    (path,) = (state / "processes").glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("kind", "changes", "served"),
    [
        ("server", {}, True),
        ("server", {"host": "elsewhere"}, False),
        ("server", {"beat_s": time.time() - 2 * SILENT_S}, False),
        ("stream", {}, False),
        ("scheduler", {}, False),
    ],
)
def test_only_a_server_that_lives_here_counts(
    tmp_path: Path, kind: Kind, changes: dict[str, Any], *, served: bool
) -> None:
    assert not is_served_here(ProjectState(tmp_path))
    beat(tmp_path, kind, **changes)
    assert is_served_here(ProjectState(tmp_path)) is served


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has idle time")
def test_work_beside_a_server_takes_idle_time(tmp_path: Path) -> None:
    def policy() -> int:
        return os.sched_getscheduler(0)

    before = policy()
    assert run_behind_servers(ProjectState(tmp_path), policy) == before
    beat(tmp_path, "server")
    assert run_behind_servers(ProjectState(tmp_path), policy) == os.SCHED_IDLE
    assert policy() == before
