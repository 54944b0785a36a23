"""`skewless serve` without plug-ins and packages of jobs: it predicts, takes events, and lets go of the stream."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from skewless.client import Client
from skewless.project import Project
from tests.servers.prediction import ROOT, PredictionServer
from tests.worlds.command_line import done
from tests.worlds.requirements import main_of_a_server
from tests.worlds.windowed import NOW, trained_repo


def test_serve_predicts_and_takes_events(tmp_path: Path) -> None:
    repo = trained_repo(tmp_path / "p", "port: 0\n")
    with Project(repo) as project:
        server = PredictionServer.start_release(ROOT, repo, {}, (sys.executable, "-c", main_of_a_server()))
        status, body = server.post("/predict", json.dumps({"rows": [{"carrier": "AA"}]}))
        assert (status, len(body["predictions"])) == (200, 1), body
        with Client(server.url) as client:
            rows = [{"carrier": "AA", "arr_delay": 1.5 * i, "landed_at": NOW - i} for i in range(3)]
            assert client.send_events("landings", rows) == 3
        said = server.ask("POST", "/push", b'{"push_source_name": "none", "df": {}}')
        assert (said[0], json.loads(said[2])["error"]["problem"]) == (400, "has no event")
        said = server.ask("GET", "/v2")
        assert said[0] == 404
        assert "pip install 'skewless[oip]'" in json.loads(said[2])["error"]
        server.stop()
        (counts,) = done("stream", "--until-idle", "--repo", repo)["sources"]
        assert counts["accepted"] == 3
        project.private.stop()
