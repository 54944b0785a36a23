"""Feedback over HTTP, from both clients and from tables: on disk when it is accepted, and what quality makes of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from skewless.client import AsyncClient, Client
from skewless.contract.errors import RequestError
from skewless.infra.records.outcomes.log import OutcomeLog
from skewless.operations.data.feedback import read_feedback
from skewless.project import Project
from tests.servers.prediction import PredictionServer
from tests.worlds.command_line import done, run
from tests.worlds.trained import MODEL, NOW, Sandbox, ask, copy_project, open_project, serving

NEVER = 2**62


@pytest.fixture(scope="module")
def repo(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(trained, tmp_path_factory.mktemp("feedback") / "p")


@pytest.fixture(scope="module")
def project(repo: Path) -> Iterator[Project]:
    with open_project(repo) as project:
        project.materialize(check=False)
        yield project
        project.private.stop()


@pytest.fixture(scope="module")
def server(repo: Path, project: Project) -> Iterator[PredictionServer]:
    assert project.redis_url
    with serving(repo) as server:
        yield server


def kept(project: Project) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = OutcomeLog(project.state, project.connection).latest(NEVER).to_pylist()
    return rows


def rows_kept(project: Project) -> int:
    return OutcomeLog(project.state, project.connection).counts(NEVER).rows


def labels_counted(server: PredictionServer) -> dict[str, float]:
    """Return what the server's metrics say of labels, by how their predictions were named."""
    found = re.findall(r'skewless_feedback_total{by="(id|entity)",kind="label"} (\S+)', server.get("/metrics"))
    return {"id": 0.0, "entity": 0.0} | {by: float(value) for by, value in found}


def test_both_clients_say_what_came(server: PredictionServer, project: Project) -> None:
    before, counted = rows_kept(project), labels_counted(server)
    with Client(server.url) as client:
        reply = client.predict(ask(2))
        said = {"prediction_id": reply.predictions[0].id, "label": 1, "value": 2.5, "known_at": NOW}
        assert client.feedback([said]) == 1

    async def asynchronously() -> int:
        async with AsyncClient(server.url) as other:
            row = ask(2)[1]
            return await other.feedback([{"model": MODEL, "keys": row, "event_time": NOW, "label": 0, "known_at": NOW}])

    assert asyncio.run(asynchronously()) == 1
    assert rows_kept(project) == before + 2
    found = {row["prediction_id"]: row for row in kept(project)}
    assert (found[said["prediction_id"]]["label"], found[said["prediction_id"]]["value"]) == (1.0, 2.5)
    assert json.loads(found[None]["keys"])["card_id"] == str(ask(2)[1]["card_id"])
    assert labels_counted(server) == {by: counted[by] + 1 for by in ("id", "entity")}


def test_a_row_that_is_wrong_refuses_the_request(server: PredictionServer, project: Project) -> None:
    before = rows_kept(project)
    good = {"prediction_id": "x", "label": 1}
    with Client(server.url) as client, pytest.raises(RequestError, match="feedback 1 field 'label': is not a number"):
        client.feedback([good, good | {"label": "late"}])
    for body, said in (
        (b"[", "is not JSON"),
        (b"[]", "single field 'feedback'"),
        (b'{"feedback": 1}', "is not a list"),
    ):
        status, _, text = server.ask("POST", "/feedback", body)
        assert (status, said in text) == (400, True), text
    assert rows_kept(project) == before


def test_many_at_once_are_all_kept(server: PredictionServer, project: Project) -> None:
    before = rows_kept(project)
    with Client(server.url) as client, ThreadPoolExecutor(8) as pool:
        rows = [[{"prediction_id": f"many-{i}-{j}", "label": 1} for j in range(3)] for i in range(100)]
        assert list(pool.map(client.feedback, rows)) == [3] * 100
        large = [{"prediction_id": f"large-{i}", "label": 0} for i in range(5_000)]
        assert client.feedback(large) == 5_000
    assert rows_kept(project) == before + 5_300


def test_the_route_is_in_the_openapi_document(server: PredictionServer) -> None:
    document = server.get("/openapi.json")
    route = document["paths"]["/feedback"]["post"]
    schema = route["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/FeedbackRequest"}
    assert document["components"]["schemas"]["FeedbackRow"]["required"] == ["label"]
    assert "202" in route["responses"]


# In make test, test_spool.py kills what ships: a server replies once its rows are in the spool.
@pytest.mark.soak
def test_what_was_accepted_survives_a_kill(repo: Path, project: Project) -> None:
    with serving(repo) as server, Client(server.url) as client:
        assert client.feedback([{"prediction_id": "killed", "label": 1}]) == 1
        server.process.kill()
        server.process.communicate()
    assert "killed" in {row["prediction_id"] for row in kept(project)}


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_tables_come_in_whole_or_not_at_all(place: Sandbox, tmp_path: Path, ending: str) -> None:
    ids = place.predict(ask(3)).ids
    path = tmp_path / f"said.{ending}"
    write(path, {"prediction_id": ids, "label": [1.0, 0.0, 1.0], "value": [1.5, None, 2.0]})
    repo = ("--repo", place.repo)
    assert done("feedback", path, "--dry-run", *repo)["kinds"] == {"label": 3}
    assert rows_kept(place.project) == 0
    body = done("feedback", path, *repo)
    assert (body["rows"], {body["batch"]}) == (3, {row["batch"] for row in kept(place.project)})
    (found,) = done("quality", MODEL, *repo)["versions"]
    assert (found["labelled"], found["value"]) == (3, 1.75)
    write(path, {"prediction_id": [*ids, ""], "label": [1.0, 0.0, 1.0, 1.0]})
    refused = run("feedback", path, *repo)
    assert (refused.code, "feedback 3" in refused.stderr) == (6, True), refused
    assert rows_kept(place.project) == 3


def test_a_table_of_entities(place: Sandbox, tmp_path: Path) -> None:
    rows = ask(3)
    place.predict(rows)
    at = pa.array([place.now_us()] * 3, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    columns = {"card_id": [row["card_id"] for row in rows], "shop_id": [row["shop_id"] for row in rows]}
    pq.write_table(pa.table(columns | {"event_time": at, "label": [0, 1, 0]}), tmp_path / "said.parquet")
    assert done("feedback", tmp_path / "said.parquet", "--model", MODEL, "--repo", place.repo)["rows"] == 3
    said = run("quality", "--since", "2d", "--window", "1d", "--repo", place.repo)
    assert (said.code, "100%" in said.stdout) == (0, True), said
    assert "feedback: 3 rows of 3 predictions" in said.stdout


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_text_key_stays_text_whatever_it_looks_like(place: Sandbox, tmp_path: Path, ending: str) -> None:
    """DuckDB guesses the types of these files: alone in a column, such texts were a number, a bool and a date."""
    for shop in ("42", "true", "2026-01-02", "1e5", "nan"):
        path, at = tmp_path / f"said{ending}", "2026-01-01T00:00:00+01:00"
        write(path, {"card_id": [9007199254740993], "shop_id": [shop], "event_time": [at], "label": [1]})
        (outcome,) = read_feedback(place.project, path, MODEL)
        assert dict(outcome.keys) == {"card_id": "9007199254740993", "shop_id": shop}
        assert (outcome.event_time, outcome.label) == (1_767_222_000_000_000, 1.0)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_time_of_a_table_needs_a_zone(place: Sandbox, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"said{ending}"
    for text in ("2026-01-01 10:00:00", "2026-01-01"):
        at = [datetime.fromisoformat(text)] if ending == ".parquet" else [text]
        write(path, {"prediction_id": ["a"], "label": [1], "known_at": at})
        refused = run("feedback", path, "--repo", place.repo)
        assert refused.code == 6
        assert "feedback 0 field 'known_at': is not a valid timestamp (got '2026-01-01" in refused.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,label\na,1\n", "feedback 0 row: has an unknown field (got 'id')"),
        *(
            (f"prediction_id,label\n001,1\nb,{label}\n", f"feedback 1 field 'label': is not a number (got {got})")
            for label, got in (
                *((text, repr(text)) for text in ("yes", "t", "0x10", "1_000", "true", "\u0661", "2026-01-02")),
                ('"1,000"', "'1,000'"),
            )
        ),
        *(
            (f"prediction_id,label\n001,1\nb,{label}\n", f"feedback 1 field 'label': is not finite (got {got})")
            for label, got in (
                ("inf", "inf"),
                ("-Infinity", "-inf"),
            )
        ),
        ("prediction_id,label\na,1\nb,1,7\n", "Expected 2 columns, got 3: b,1,7"),
        ("prediction_id,label\na\n", "Expected 2 columns, got 1: a"),
        ("prediction_id,label,label\na,1,0\n", "has two columns with one name"),
        ("prediction_id,label\n\udce9,1\n", "invalid UTF8 data"),
        ("prediction_id;label\na;1\n", "has an unknown field (got 'prediction_id;label')"),
        ("", "cannot be read: Empty CSV file"),
        ("prediction_id,label\n", "has no rows"),
    ],
)
def test_nothing_of_a_csv_file_is_guessed(place: Sandbox, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "said.csv"
    path.write_text(text, errors="surrogateescape")
    refused = run("feedback", path, "--repo", place.repo)
    assert (refused.code in {4, 6}, said in refused.stderr) == (True, True), refused
    assert rows_kept(place.project) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"prediction_id": "a", "label": "1"}', "is not a number (got '1')"),
        ('{"prediction_id": "a", "label": NaN}', "has a line 1 that is not JSON"),
        ("\n[1]", "feedback 0 row: is not an object"),
        ('{"prediction_id": "a", "label": 1}\n{', "has a line 2 that is not JSON"),
    ],
)
def test_a_file_of_lines_is_read_as_a_request(place: Sandbox, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text(text)
    refused = run("feedback", path, "--repo", place.repo)
    assert (refused.code in {4, 6}, said in refused.stderr) == (True, True), refused
    entity = {"model": MODEL, "keys": ask(1)[0], "event_time": "2026-01-01T00:00:00Z", "label": None}
    path.write_text("\n" + json.dumps(entity) + "\n")
    assert done("feedback", path, "--repo", place.repo)["kinds"] == {"retraction": 1}


def test_numbers_and_texts_of_a_csv_file(place: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "said.csv"
    lines = ["prediction_id,model,label,known_at", f'"a,b",{MODEL},-1.5e-1,7', "007,,,", "1e5,,01,"]
    path.write_text("\ufeff" + "\r\n".join(lines))
    outcomes = read_feedback(place.project, path, None)
    assert [outcome.prediction_id for outcome in outcomes] == ["a,b", "007", "1e5"]
    assert [outcome.label for outcome in outcomes] == [-0.15, None, 1.0]
    assert (outcomes[0].model, outcomes[0].known_at, outcomes[1].model) == (MODEL, 7, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("feedback", "nothing.csv"), "is missing"),
        (("feedback", "nothing.xml"), "is not a .parquet, .csv or .jsonl file"),
        (("quality", "other"), "is not in the applied plan"),
        (("quality", "--since", "soon"), "is not a time with a zone, and not an age"),
        (("quality", "--window", "0d"), "is not valid"),
        (("quality", "--window", "1s"), "are more than 60"),
        (("quality", "--since", "2100-01-01T00:00Z"), "ends before it begins"),
    ],
)
def test_what_cannot_be_done_is_said(place: Sandbox, words: tuple[str, ...], said: str) -> None:
    refused = run(*words, "--repo", place.repo, *(("--since", "1d") if "1s" in words else ()))
    assert refused.code in {4, 6}
    assert said in refused.stderr


def write(path: Path, columns: dict[str, Sequence[Any]]) -> None:
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        path.write_text("\n".join(map(json.dumps, table.to_pylist())))
