"""A required prediction is durable before its reply: on the disk, or in the log, whatever is killed or away."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Thread

import duckdb
import pyarrow.parquet as pq
import pytest

from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.reader import PredictionLog
from skewless.infra.records.predictions.segments import PREDICTIONS, prediction_spool
from skewless.project import Project
from tests.integration.serving.core.conftest import SECOND
from tests.servers.prediction import PredictionServer
from tests.worlds.command_line import done
from tests.worlds.trained import MODEL, Sandbox, ask, serving
from tests.worlds.waiting import eventually
from tools.postgres_server import PostgresServer

DURABILITY = ("disk", "storage")
WAITING = "skewless_log_files_waiting "


def predict(server: PredictionServer, model: str = SECOND) -> tuple[int, list[str]]:
    """Return the status of a reply and the ids of its predictions."""
    body = json.dumps({"model": model, "rows": ask(2)}).encode()
    status, _, text = server.ask("POST", "/predict", body)
    return status, [item["id"] for item in json.loads(text).get("predictions", [])]


def kill(server: PredictionServer) -> None:
    server.process.kill()
    server.process.communicate()


def logged_ids(state: ProjectState) -> set[str]:
    """Return the ids of the catalog's segments; nothing is shipped."""
    log = PartitionLog(state, PREDICTIONS)
    return {name for path in log.files() for name in pq.read_table(path, columns=["id"])["id"].to_pylist()}


def unshipped(server: PredictionServer) -> tuple[set[str], float]:
    """Return what the server says about files that it cannot ship: its readiness details, and its metric."""
    status, _, text = server.ask("GET", "/health/ready")
    assert status == 200
    line = next(line for line in str(server.get("/metrics")).splitlines() if line.startswith(WAITING))
    return set(json.loads(text)["details"]), float(line.removeprefix(WAITING))


@contextmanager
def storage_away(place: Sandbox) -> Iterator[None]:
    """Let the storage refuse objects of the prediction log: a file has the name of their folder."""
    path = place.state / PREDICTIONS
    path.write_bytes(b"")
    yield
    path.unlink()


@dataclass(kw_only=True)
class RequiringClient:
    """Requests predictions until the server is gone; ``ids`` are those of replies with 200."""

    server: PredictionServer
    ids: list[str] = field(default_factory=list)

    def run(self) -> None:
        for _ in count():
            try:
                status, ids = predict(self.server)
            except (OSError, ValueError):
                return
            if status == 200:
                self.ids += ids


# In `make test`, no server is killed where a reply waits for the log: the test below reads the log after each reply.
@pytest.mark.parametrize("durability", ["disk", pytest.param("storage", marks=pytest.mark.soak)])
def test_an_answered_prediction_is_in_the_log_of_a_killed_server(place: Sandbox, durability: str) -> None:
    state = ProjectState(place.state)
    answered: set[str] = set()
    for replies in (1, 20):
        is_away = replies == 1 and durability == "disk"
        with (
            storage_away(place) if is_away else nullcontext(),
            serving(place.repo, SKEWLESS_LOG_DURABILITY=durability) as server,
        ):
            # What the killed server could not ship, the next one ships.
            eventually(lambda: logged_ids(state), answered.issubset)
            clients = [RequiringClient(server=server) for _ in range(3)]
            threads = [Thread(target=client.run) for client in clients]
            for thread in threads:
                thread.start()
            eventually(lambda: sum(len(client.ids) for client in clients) >= replies)  # noqa: B023 - called here
            kill(server)
            for thread in threads:
                thread.join()
        assert not is_away or prediction_spool(state).waiting()
        answered.update(name for client in clients for name in client.ids)
        if durability == "storage":
            assert answered <= logged_ids(state)
    with duckdb.connect() as connection:
        log = PredictionLog(state, connection)
        assert all(log.find(name) is not None for name in answered)
    assert prediction_spool(state).waiting() == []
    assert sum(segment.rows for segment in PartitionLog(state, PREDICTIONS).segments()) == len(logged_ids(state))
    assert place.project.replay().ok


@pytest.mark.parametrize("durability", DURABILITY)
def test_a_storage_that_is_away_is_an_error_only_where_it_is_required(place: Sandbox, durability: str) -> None:
    state = ProjectState(place.state)
    with serving(place.repo, SKEWLESS_LOG_DURABILITY=durability, SKEWLESS_LOG_FLUSH_SECONDS="0.05") as server:
        assert unshipped(server) == (set(), 0.0)
        with storage_away(place):
            status, ids = predict(server)
            assert (status, len(ids)) == ((200, 2) if durability == "disk" else (503, 0))
            assert predict(server, MODEL)[0] == 200
            eventually(lambda: unshipped(server), lambda signs: signs[0] == {"logs"} and signs[1] >= 1)
            _, _, text = server.ask("GET", "/health/ready")
            assert str(place.repo) not in text
            assert done("status", "--repo", place.repo)["server"]["problems"].keys() == {"logs"}
        eventually(lambda: unshipped(server) == (set(), 0.0))
        assert set(ids) < logged_ids(state)
        assert len(logged_ids(state)) == 4
        status, ids = predict(server)
        assert status == 200
        if durability == "storage":
            assert set(ids) < logged_ids(state)


def test_a_database_that_is_away_is_an_error_only_where_it_is_required(
    place: Sandbox, tmp_path: Path, own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(place.repo, other, ignore=shutil.ignore_patterns(".skewless"))
    place.project.backup(tmp_path / "backup")
    url = own_postgres.start()
    monkeypatch.setenv("SKEWLESS_DATABASE_URL", url)
    done("restore", tmp_path / "backup", "--repo", other)
    clock = shutil.copy(place.state / "clock", other / ".skewless/clock")
    monkeypatch.setenv("SKEWLESS_CLOCK", f"file:{clock}")
    done("materialize", "--repo", other)
    for durability, expected in (("disk", 200), ("storage", 503)):
        with serving(other, SKEWLESS_LOG_DURABILITY=durability) as server:
            assert predict(server)[0] == 200
            own_postgres.stop()
            assert predict(server)[0] == expected
            assert predict(server, MODEL)[0] == 200
            eventually(lambda: "logs" in unshipped(server)[0])
            own_postgres.start()
            eventually(lambda: unshipped(server) == (set(), 0.0))
    with Project(other) as project:
        project.state.database.close()  # the connections of this process ended with the server
        assert prediction_spool(project.state).waiting() == []
        assert len(logged_ids(project.state)) == 12
