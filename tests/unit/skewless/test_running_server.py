"""The prediction server runs if its process exists, whichever user has started it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.health.server_status import running_server


@pytest.mark.parametrize(("error", "runs"), [(None, True), (PermissionError(), True), (ProcessLookupError(), False)])
def test_a_server_of_another_user_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None, *, runs: bool
) -> None:
    def kill(_pid: int, _signal: int) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(os, "kill", kill)
    (tmp_path / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": 7}))
    assert running_server(ProjectState(tmp_path)) == ({"url": "http://127.0.0.1:1", "pid": 7} if runs else None)
