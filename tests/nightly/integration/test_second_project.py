"""A second project, changed to a made-up schema, passes every verb; its values are exact and proven."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import redis

from skewless.client import Client
from skewless.contract.clock import OffsetClock, to_us
from skewless.contract.keys import KeyCodec
from skewless.contract.rows import NO_TIME, RowCodec
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.project import Project
from tests.nightly.worlds.odd_names import ASKED, CROPS, DAY, HUGE, NOW, ORDERS, change
from tests.worlds.command_line import done, run
from tests.worlds.payments_data import write_payments
from tests.worlds.trained import copy_project

ROOT = Path(__file__).parents[3]
MAIN = "from skewless.cli import main; main()"
MODELS = {"yield-xgb": 6, "good": 12}
Key = tuple[int, str]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project after ``init``, the change, and the verbs that lead to two champions."""
    root = tmp_path_factory.mktemp("second")
    OffsetClock.create(root / "clock").set(NOW)
    repo = root / "my-project"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKEWLESS_CLOCK", f"file:{root / 'clock'}")
        patch.setenv("SKEWLESS_THREADS", "1")
        patch.setenv("SKEWLESS_PORT", "0")
        write_payments(repo)
        change(repo)
        foreseen = done("plan", "--repo", repo)
        assert done("apply", "--repo", repo)["plan"] == foreseen["plan"]
        assert done("validate", "--repo", repo)["success"]
        assert done("materialize", "--repo", repo)["totals"]["rejected"] == 0
        trained = done("train", "--repo", repo)["models"]
        assert {model["model"]: model["promoted"] for model in trained} == dict.fromkeys(MODELS, True)
        yield repo
        PrivateServer(repo / ".skewless").stop()


def newest(repo: Path) -> dict[Key, Row]:
    """Return the newest source row of each plot by plain Python."""
    best: dict[Key, Row] = {}
    for row in pq.read_table(repo / "data/plots.parquet").to_pylist():
        key = (row["order id"], row["crop_y"])
        rank = (row["when"], row["end"] is not None, row["end"])
        if key not in best or rank[:2] > (best[key]["when"], best[key]["end"] is not None):
            best[key] = row
    return best


def rows_to_ask(repo: Path) -> list[Row]:
    """Return the newest label rows as a caller would send them."""
    table = pq.read_table(repo / "data/asked.parquet").slice(ASKED - 200).to_pylist()
    wanted = ("crop_y", "asked at", "from", "union", "flag", "big")
    return [
        {"order": row["order id"], **{name: row[name] for name in wanted}, "asked at": to_us(row["asked at"])}
        for row in table
    ]


def predict(repo: Path, model: str, rows: list[Row]) -> list[Row]:
    body = done("predict", model, "--row", json.dumps(sent(model, rows)), "--repo", repo)
    predictions: list[Row] = body["predictions"]
    return predictions


def sent(model: str, rows: list[Row]) -> list[Row]:
    """Return rows with the fields that a model takes: without a transform only the keys."""
    return rows if model == "good" else [{name: row[name] for name in ("order", "crop_y")} for row in rows]


def same(left: float | None, right: object) -> bool:
    """Say whether a JSON value is the number of a source value, to the last bit."""
    if left is None or right is None:
        return left is None and right is None
    assert isinstance(right, int | float)
    return math.copysign(1, left) == math.copysign(1, right) and float(left) == float(right)


def test_every_value_that_the_model_saw_is_the_source_s(repo: Path) -> None:
    rows, source = rows_to_ask(repo), newest(repo)
    crops = {row["crop_y"]: row for row in pq.read_table(repo / "data/crops").sort_by("from").to_pylist()}
    gone = 0
    for row, item in zip(rows, predict(repo, "yield-xgb", rows), strict=True):
        stored: Row = source[row["order"], row["crop_y"]]
        dropped = bool(stored["drop"])
        gone += dropped
        seen = None if stored["last seen"] is None else to_us(stored["last seen"])
        expected = {name: stored[name] for name in ("select", "group_y", "is_y")}
        expected |= {"last seen": seen, "table": stored["tafel"]}
        expected = {f"plots__{name}": None if dropped else value for name, value in expected.items()}
        expected["crops__limit"] = crops[row["crop_y"]]["limit"]
        assert item["features"].keys() == expected.keys()
        assert all(same(item["features"][name], value) for name, value in expected.items()), (item, expected)
    assert 0 < gone < len(rows)


def test_integers_beyond_2_53_are_exact_in_redis_and_in_the_log(repo: Path) -> None:
    project = Project(repo)
    view = project.applied.plan.view("plots")
    source = newest(repo)
    keys, codec = KeyCodec("my_project", view), RowCodec(view)
    names = [keys.encode(key) for key in source]
    client = redis.Redis.from_url(project.redis_url)
    stored = [client.get(name) for name in names if name is not None]
    client.close()
    read = codec.decode([row for row in stored if isinstance(row, bytes)])
    wanted = [None if row["drop"] else row["select"] for row in source.values()]
    pairs = zip(read.nulls["select"], read.values["select"].tolist(), strict=True)
    got = [None if null else value for null, value in pairs]
    assert got == wanted
    texts = [None if row["drop"] else row['the "best"'] for row in source.values()]
    assert read.values['the "best"'].tolist() == texts
    assert len(stored) == len(source) == ORDERS
    logged = pa.concat_tables([pq.read_table(path) for path in project.views.log(view).files()])
    assert triples(logged, "order", "select", "__event_ts") == triples(
        pq.read_table(repo / "data/plots.parquet"), "order id", "select", "when"
    )
    created = [NO_TIME if row["end"] is None else to_us(row["end"]) for row in source.values()]
    assert read.versions.created_ts.tolist() == created
    project.close()


def triples(table: pa.Table, *names: str) -> set[tuple[object, ...]]:
    columns = [table[name].cast(pa.int64()).to_pylist() for name in names]
    return set(zip(*columns, strict=True))


# In make test, each model and each format once.
@pytest.mark.parametrize(
    ("model", "ending"),
    [
        ("yield-xgb", "csv"),
        ("good", "parquet"),
        pytest.param("yield-xgb", "parquet", marks=pytest.mark.soak),
        pytest.param("good", "csv", marks=pytest.mark.soak),
    ],
)
def test_a_file_is_predicted_as_its_rows_are(repo: Path, tmp_path: Path, model: str, ending: str) -> None:
    source, target = tmp_path / f"in.{ending}", tmp_path / "out.parquet"
    table = pq.read_table(repo / "data/asked.parquet").slice(ASKED - 200)
    table = table.rename_columns({"order id": "order"})
    if ending == "csv":
        pa_csv.write_csv(table, source)
    else:
        pq.write_table(table, source)
    assert done("predict", model, "--in", source, "--out", target, "--repo", repo)["rows"] == 200
    scores = pq.read_table(target)["score"].to_pylist()
    assert scores == [item["score"] for item in predict(repo, model, rows_to_ask(repo))]
    assert len(set(scores)) > 20


def test_text_is_a_category_and_an_unknown_one_is_missing(repo: Path) -> None:
    row = rows_to_ask(repo)[0] | {"union": "Überall"}
    features = predict(repo, "good", [row, row | {"union": "≠"}, row | {"union": None}, row | {"union": "Ü"}])
    unions = [item["features"]["values__union_y"] for item in features]
    assert unions == [3.0, None, None, 3.0]  # "", "j", "n", "Ü"
    assert len(features[0]["features"]) == MODELS["good"]


def test_keys_are_what_their_type_says(repo: Path) -> None:
    row = rows_to_ask(repo)[0]
    order = HUGE + 9  # lies beside HUGE + 8 and HUGE + 10, which are the same float64
    crop = next(key[1] for key in newest(repo) if key[0] == order)
    same_row = [row | {"order": order, "crop_y": crop}, row | {"order": str(order), "crop_y": crop}]
    others = [row | {"order": order, "crop_y": crop.upper() + " "}, row | {"order": None, "crop_y": crop}]
    found = [item["features"]["plots__last seen"] for item in predict(repo, "yield-xgb", same_row + others)]
    seen = newest(repo)[order, crop]["last seen"]
    assert found == [seen and to_us(seen), seen and to_us(seen), None, None]
    for wrong in (float(order), True, "1.0", 2**63):
        said = run("predict", "good", "--row", json.dumps(row | {"order": wrong}), "--repo", repo, "--json")
        assert (said.code, said.body["error"]["thing"]) == (6, "row 0 key 'order'")


def test_the_dataset_has_the_declared_columns(repo: Path) -> None:
    project = Project(repo)
    dataset = project.training_set("good")
    table = dataset.table()
    assert table.column_names == [*dataset.names, "label", "t", "split"]
    assert [name for name in dataset.names if name in dataset.vocabularies] == [
        "values__union_y",
        "crops__where",
        'plots__the "best"',
    ]
    assert dataset.vocabularies['plots__the "best"'] == sorted(["gut", "très bon", "良い", ""])
    asked = pq.read_table(repo / "data/asked.parquet").to_pylist()
    known = [row for row in asked if to_us(row["known"]) <= project.clock.now_us()]
    assert dataset.labels.tolist() == [row["good"] for row in known]
    hour_before = np.array([to_us(row["asked at"]) - 3_600_000_000 for row in known])
    assert (project.training_set("yield-xgb").t == hour_before // 1_000 * 1_000).all()
    project.close()


# In make test, test_walk.py has the bits of a server; these names and values come through the same code of rows.
@pytest.mark.soak
def test_the_server_answers_as_the_command_line_does(repo: Path) -> None:
    command = [sys.executable, "-c", MAIN, "serve", "--repo", str(repo), "--json"]
    rows = rows_to_ask(repo)[:50]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            client = Client(json.loads(process.stdout.readline())["url"])
            replies = {model: client.predict(sent(model, rows), model=model, features=True) for model in MODELS}
            client.close()
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    for model, reply in replies.items():
        served = [(item.score, item.features) for item in reply]
        assert served == [(item["score"], item["features"]) for item in predict(repo, model, rows)]
    assert replies["yield-xgb"].log == "required"


def test_what_was_served_is_proven(repo: Path) -> None:
    rows = rows_to_ask(repo)
    rows += [row | {"order": 1, "crop_y": "nobody"} for row in rows[:7]] + [row | {"from": -0.0} for row in rows[:3]]
    for model in MODELS:
        predict(repo, model, rows)
    body = done("replay", "--repo", repo)
    assert (body["different"], body["by_cause"], body["ok"]) == (0, {}, True)
    assert body["compared"] >= 2 * len(rows)
    plots = body["status"]["plots"]
    assert sum(plots.values()) == body["compared"]
    assert plots["NOT_FOUND"] >= 14
    assert body["training"]["knowledge"]["different"] == 0


@pytest.fixture
def own_project(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, OffsetClock]]:
    """A copy with a clock and a store of its own."""
    with Project(repo) as project:
        now = project.clock.now_us()
    monkeypatch.setenv("SKEWLESS_CLOCK", f"file:{tmp_path / 'clock'}")
    clock = OffsetClock.create(tmp_path / "clock")
    clock.set(now)
    place = copy_project(repo, tmp_path / "my-project")
    done("materialize", "--repo", place)
    yield place, clock
    PrivateServer(place / ".skewless").stop()


# In make test, test_scheduler.py has such a round, and test_replay_kinds.py expired rows.
@pytest.mark.soak
def test_time_passes_and_rows_expire_and_retrain(own_project: tuple[Path, OffsetClock]) -> None:
    """Six days on, every plot is older than its ttl; a round of the scheduler works, and replay still proves."""
    repo, clock = own_project
    rows = rows_to_ask(repo)[:20]
    clock.set(clock.now_us() + 6 * DAY)
    expired = predict(repo, "yield-xgb", rows)
    assert {item["features"]["plots__select"] for item in expired} == {None}
    only = [word for kind in ("materialize", "validate", "retrain") for word in ("--only", kind)]
    jobs = {job["job"]: job["ok"] for job in done("scheduler", *only, "--repo", repo)["jobs"]}
    assert jobs == {"materialize": True, "validate": True, "retrain good": True}
    models = {model["model"]: model["versions"] for model in done("status", "--repo", repo)["models"]}
    assert models == {"yield-xgb": 1, "good": 2}
    predict(repo, "good", rows)
    body = done("replay", "--repo", repo)
    assert body["different"] == 0
    assert body["status"]["plots"]["EXPIRED"] >= 20
    assert run("doctor", "--repo", repo, "--json").body["checks"]
    assert set(CROPS) == {row["crop_y"] for row in rows_to_ask(repo)}
