"""A server whose prediction log cannot be written, while a model requires it."""

from __future__ import annotations

import json
import shutil

from skewless.infra.platform.alerts.alerts import open_alerts
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import prediction_spool
from skewless.operations.health.freshness import check_freshness
from tests.integration.serving.core.conftest import SECOND
from tests.servers.prediction import PredictionServer
from tests.worlds.trained import MODEL, Sandbox, ask, serving
from tests.worlds.waiting import eventually

READY = ("/health/ready", "/v2/health/ready")


def predict(server: PredictionServer, model: str) -> tuple[int, str]:
    status, _, text = server.ask("POST", "/predict", json.dumps({"model": model, "rows": ask(1)}).encode())
    return status, text


def test_it_is_not_ready_and_says_so_without_a_path_until_the_disk_takes_files(place: Sandbox) -> None:
    with serving(place.repo, SKEWLESS_LOG_FLUSH_SECONDS="0.05") as server:
        loses_its_disk(place, server)
        server.process.terminate()
        logged = server.process.communicate(timeout=100)[1]
    assert logged.count("prediction_log_refused") == logged.count("prediction_log_recovered") == 1
    assert "Traceback" not in logged


def loses_its_disk(place: Sandbox, server: PredictionServer) -> None:
    folder = prediction_spool(ProjectState(place.state)).folder
    assert [server.ask("GET", path)[0] for path in READY] == [200, 200]
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    folder.write_bytes(b"")  # no file can be made below it, as on a full disk
    status, text = predict(server, SECOND)
    assert (status, json.loads(text)["error"]["kind"]) == (503, "store")
    told = [server.ask("GET", path) for path in READY]
    assert [status for status, _, _ in told] == [503, 503]
    assert json.loads(told[0][2])["reasons"].keys() == {"prediction log"}
    assert SECOND in told[0][2]
    for said in (text, *(text for _, _, text in told)):
        assert str(place.repo) not in said
    assert 'skewless_log_dropped_total{reason="disk"} 1' in server.get("/metrics")
    assert predict(server, MODEL)[0] == 200  # its log is best effort

    def alerts() -> set[str]:
        check_freshness(place.project)
        return {alert.name for alert in open_alerts(ProjectState(place.state))} & {"prediction_log"}

    eventually(alerts)
    folder.unlink()
    eventually(lambda: server.ask("GET", READY[0])[0] == 200)
    assert predict(server, SECOND)[0] == 200
    eventually(lambda: not alerts())
