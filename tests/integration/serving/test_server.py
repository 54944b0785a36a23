"""`skewless serve` takes events beside predictions, and lets go of the stream when it stops."""

from __future__ import annotations

import json
from pathlib import Path

from skewless.client import Client
from skewless.project import Project
from tests.servers.prediction import PredictionServer
from tests.worlds.command_line import done
from tests.worlds.windowed import NOW, trained_repo


def test_serve_takes_events(tmp_path: Path) -> None:
    repo = trained_repo(tmp_path / "p", "port: 0\n")
    with Project(repo) as project:
        server = PredictionServer.start(repo)
        with Client(server.url) as client:
            rows = [{"carrier": "AA", "arr_delay": 1.5 * i, "landed_at": NOW - i} for i in range(3)]
            assert client.send_events("landings", rows) == 3
        said = server.ask("POST", "/push", b'{"push_source_name": "none", "df": {}}')
        assert (said[0], json.loads(said[2])["error"]["problem"]) == (400, "has no event")
        server.stop()
        (counts,) = done("stream", "--until-idle", "--repo", repo)["sources"]
        assert counts["accepted"] == 3
        project.private.stop()
