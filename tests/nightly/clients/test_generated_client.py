"""A client generated from the OpenAPI document calls every route, and understands the replies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skewless.infra.platform.access.api_keys import SCOPES
from skewless.infra.reads.online.private_server import PrivateServer
from tests.nightly.clients.test_clients import run
from tests.servers.prediction import PredictionServer
from tests.worlds.command_line import done
from tests.worlds.windowed import NOW, trained_repo

HERE = Path(__file__).parent
PACKAGE = "skewless_made"
CONFIG = f"""
post_hooks: []
project_name_override: {PACKAGE}
package_name_override: {PACKAGE}
content_type_overrides:
  application/x-ndjson: application/octet-stream
"""
ROW = {"carrier": "AA"}
EVENT = {"carrier": "AA", "arr_delay": 1.5, "landed_at": "2026-01-15T11:59:00Z"}
TENSOR = {"name": "carrier", "datatype": "BYTES", "shape": [1], "data": ["AA"]}
NAMES = {"name": "late", "version": "1", "source": "landings"}
BODIES: dict[str, list[Any]] = {
    "post_predict": [
        {"rows": [ROW]},
        {"model": "late", "rows": [ROW, ROW], "features": True, "contributions": True, "leaves": True},
    ],
    "post_events_source": [EVENT, {"events": [EVENT, EVENT]}, f"{json.dumps(EVENT)}\n{json.dumps(EVENT)}\n"],
    "post_push": [{"push_source_name": "landings", "df": {name: [value] for name, value in EVENT.items()}}],
    "post_feedback": [{"feedback": [{"model": "late", "keys": ROW, "event_time": NOW, "label": 1.0}]}],
    "post_v2_models_name_infer": [{"inputs": [TENSOR]}],
    "post_v2_models_name_versions_version_infer": [{"id": "7", "inputs": [TENSOR], "outputs": [{"name": "score"}]}],
    "post_v2_repository_index": [{"ready": True}],
    "post_v2_repository_models_name_load": [{"parameters": {"version": "1"}}],
}


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Path]:
    repo = trained_repo(tmp_path / "p", "auth: required\nport: 0\n")
    done("train", "--repo", repo)  # so that there is one to roll back to
    yield repo
    PrivateServer(repo / ".skewless").stop()


def test_a_generated_client_calls_every_route(repo: Path, foreign: str, tmp_path: Path) -> None:
    scopes = [word for scope in SCOPES for word in ("--scope", scope)]
    key = done("keys", "add", "made", *scopes, "--repo", repo)["key"]
    server = PredictionServer.start(repo)
    try:
        document = server.get("/openapi.json")
        found = called(server.url, key, document, foreign, tmp_path)
    finally:
        server.stop()
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert {name for name, _, _ in found} == {operation["operationId"] for operation in operations}
    assert len(found) == len(operations) + 3  # some are called more than once
    assert [item for item in found if item[1] not in {200, 202} or item[2] in {"ErrorReply", "OipError"}] == []
    kinds = {name: kind for name, _, kind in found}
    assert kinds["post_predict"] == "PredictReply"
    assert kinds["post_events_source"] == kinds["post_push"] == "EventsReply"


def called(url: str, key: str, document: object, python: str, folder: Path) -> list[tuple[str, int, str]]:
    """Generate a client, let it call every route; return operation, status and type of each reply."""
    (folder / "document.json").write_text(json.dumps(document))
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "asked.json").write_text(json.dumps({"names": NAMES, "bodies": BODIES}))
    words = ["generate", "--path", "document.json", "--output-path", "made", "--config", "config.yaml"]
    said = run(python, "-m", "openapi_python_client", *words, "--fail-on-warning", cwd=folder)
    assert (folder / "made" / PACKAGE).is_dir(), said
    script = (HERE / "every_route.py").read_text(encoding="utf-8")
    (folder / "made" / "every_route.py").write_text(script, encoding="utf-8")
    found = json.loads(run(python, "every_route.py", url, key, "../asked.json", cwd=folder / "made"))
    return [(name, status, kind) for name, status, kind in found]
