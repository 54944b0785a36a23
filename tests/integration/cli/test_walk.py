"""The walk of a new project through the verbs that train, serve and prove."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from skewless.contract.clock import to_us
from tests.worlds.command_line import ROWS, done, fingerprint, run
from tests.worlds.edits import edit
from tests.worlds.planted import rewrite

ROOT = Path(__file__).parents[3]
MAIN = "from skewless.cli import main; main()"


def bits(score: float) -> bytes:
    """Return a float as it is, to the last bit."""
    return struct.pack("<d", score)


@pytest.fixture
def url(walked: Path) -> Iterator[str]:
    """The URL of ``skewless serve``, a process of its own; it must end cleanly."""
    command = [sys.executable, "-c", MAIN, "serve", "--repo", str(walked), "--port", "0", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            ready = json.loads(process.stdout.readline())
            assert ready["pid"] == process.pid
            assert done("status", "--repo", walked)["server"] == {
                "url": ready["url"],
                "pid": process.pid,
                "problems": {},
            }
            yield ready["url"]
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read()
    assert (process.returncode, rest) == (0, "")
    assert done("status", "--repo", walked)["server"] is None


def ask(url: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the server predicts, features included."""
    body = json.dumps({"model": "fraud", "rows": rows, "features": True}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/predict", data=body, method="POST")) as reply:  # noqa: S310
        answer = json.loads(reply.read())
    predictions: list[dict[str, Any]] = answer["predictions"]
    return predictions


def table() -> pa.Table:
    """Return the rows as a file would hold them."""
    moments = [to_us_of(row["paid_at"]) for row in ROWS]
    return pa.table(
        {
            "card_id": pa.array([None if row["card_id"] is None else int(row["card_id"]) for row in ROWS], pa.int64()),
            "shop_id": [row["shop_id"] for row in ROWS],
            "amount": pa.array([row["amount"] for row in ROWS], pa.float64()),
            "paid_at": pa.array(moments, pa.timestamp("us", tz="UTC")),
            "note": ["kept"] * len(ROWS),
        }
    )


def to_us_of(moment: str | int) -> int:
    """Return a request's moment as microseconds."""
    return moment if isinstance(moment, int) else to_us(datetime.fromisoformat(moment))


def test_predictions_are_equal_bit_for_bit_by_row_file_and_http(walked: Path, url: str, tmp_path: Path) -> None:
    many = done("predict", "fraud", "--row", json.dumps(ROWS), "--repo", walked)["predictions"]
    single = [done("predict", "--row", json.dumps(row), "--repo", walked)["predictions"][0] for row in ROWS]
    served = ask(url, ROWS)
    expected = [bits(item["score"]) for item in many]
    assert [bits(item["score"]) for item in single] == expected
    assert [bits(item["score"]) for item in served] == expected
    assert [item["features"] for item in served] == [item["features"] for item in many]
    assert many[2]["features"]["card_days__payments_7d"] is None
    pq.write_table(table(), tmp_path / "rows.parquet")
    pa_csv.write_csv(table(), tmp_path / "rows.csv")
    for source, target in (("rows.parquet", "out.parquet"), ("rows.csv", "out.csv"), ("rows.parquet", "mixed.csv")):
        answer = done("predict", "--in", tmp_path / source, "--out", tmp_path / target, "--repo", walked)
        assert answer["rows"] == len(ROWS)
        path = tmp_path / target
        result = pa_csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
        assert [bits(score) for score in result["score"].to_pylist()] == expected
        assert result["note"].to_pylist() == ["kept"] * len(ROWS)
    (tmp_path / "days").mkdir()
    for i in range(len(ROWS)):
        pq.write_table(table().slice(i, 1), tmp_path / f"days/{i}.parquet")
    answer = done("predict", "--in", tmp_path / "days", "--out", tmp_path / "scored", "--repo", walked)
    assert answer == {"rows": len(ROWS), "out": str(tmp_path / "scored")}
    parts = [pq.read_table(tmp_path / f"scored/{i}.parquet")["score"].to_pylist() for i in range(len(ROWS))]
    assert [bits(score) for part in parts for score in part] == expected


def test_a_file_may_have_more_rows_than_a_request(
    walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_MAX_BATCH", str(len(ROWS) - 1))
    for name in ("rows.parquet", "rows.csv"):
        (pq.write_table if name.endswith("t") else pa_csv.write_csv)(table(), tmp_path / name)
        answer = done("predict", "--in", tmp_path / name, "--out", tmp_path / "out.parquet", "--repo", walked)
        assert answer["rows"] == len(ROWS) == pq.read_metadata(tmp_path / "out.parquet").num_rows


def test_a_port_in_use_is_refused(walked: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = run("serve", "--port", str(port), "--repo", walked, "--json")
    assert (said.code, said.body["error"]["thing"]) == (10, f"address 127.0.0.1:{port}")


def test_rows_come_from_stdin_too(walked: Path) -> None:
    said = run("predict", "--row", "-", "--repo", walked, "--json", stdin=json.dumps(ROWS[0]))
    assert [len(item["features"]) for item in said.body["predictions"]] == [6]
    shown = run("predict", "--row", json.dumps(ROWS[0]), "--repo", walked)
    assert repr(said.body["predictions"][0]["score"]) in shown.stdout


@pytest.mark.parametrize(
    ("words", "kind", "value"),
    [
        ([], "request", None),
        (["--row", "{}", "--in", "a.csv"], "request", None),
        (["--in", "a.csv"], "request", None),
        (["--row", "{card_id: 7}"], "request", None),
        (["--row", '{"amount": NaN}'], "request", "NaN"),
        (["--row", "[]"], "request", None),
        (["--row", '{"card": 7}'], "request", "card"),
        (["nosuch", "--row", "{}"], "request", "nosuch"),
        (["--in", "rows.txt", "--out", "o.csv"], "request", "rows.txt"),
        (["--in", ".", "--out", "o.txt"], "request", "o.txt"),
        (["--in", "missing.csv", "--out", "o.csv"], "source", None),
    ],
)
def test_predict_refuses(words: list[str], kind: str, value: str | None, walked: Path) -> None:
    said = run("predict", *words, "--repo", walked, "--json")
    assert said.code == {"request": 6, "source": 4}[kind]
    assert said.body["error"]["kind"] == kind
    assert said.body["error"].get("value") == value


@pytest.mark.parametrize(("cell", "code"), [("abc", 6), ("NA", 6), ("", 0), ("nan", 0)])
def test_a_file_that_fails_leaves_nothing_behind(cell: str, code: int, walked: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(f"card_id,shop_id,amount,paid_at\n7,s,{cell},2025-01-31T12:00:00Z\n")
    said = run("predict", "--in", source, "--out", tmp_path / "out.csv", "--repo", walked, "--json")
    assert said.code == code
    assert set(fingerprint(tmp_path)) == {"in.csv"} | ({"out.csv"} if code == 0 else set())


def test_a_text_key_that_looks_like_null_is_a_key(walked: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("card_id,shop_id,amount,paid_at\n7,NA,1.5,1970-01-01T00:00:00Z\n")
    done("predict", "--in", tmp_path / "in.csv", "--out", tmp_path / "out.csv", "--repo", walked)
    logged = (walked / ".skewless/predictions").glob("*.parquet")
    inputs = [json.loads(text) for path in logged for text in pq.read_table(path)["inputs"].to_pylist()]
    assert {"card_id": "7", "shop_id": "NA", "amount": 1.5, "paid_at": "1970-01-01T00:00:00Z"} in inputs


def test_status_counts_what_is_there(walked: Path) -> None:
    done("predict", "--row", json.dumps(ROWS), "--repo", walked)
    body = done("status", "--repo", walked)
    logged = sum(pq.read_table(path).num_rows for path in (walked / ".skewless/predictions").glob("*.parquet"))
    assert body["predictions"] == logged >= len(ROWS)
    views = {view["view"]: view for view in body["views"]}
    for name, rows in (("card_days", 6000), ("shop_risk", 2400)):
        files = (walked / ".skewless/log/batch").glob(f"{name}-*/*.parquet")
        assert views[name]["log_rows"] == sum(pq.read_table(path).num_rows for path in files) == rows
        assert (views[name]["rejected"], views[name]["online_seq"]) == (0, rows - 1)
    assert body["plan"]["current"] is True
    (model,) = body["models"]
    assert (model["model"], model["metric"], model["problem"]) == ("fraud", "auc", None)
    assert model["champion"] == f"{model['versions']:06d}"
    assert "fraud" in run("status", "--repo", walked).stdout


def test_status_says_that_definitions_changed(applied: Path) -> None:
    with (applied / "models.py").open("a") as file:
        file.write("# changed\n")
    assert done("status", "--repo", applied)["plan"]["state"] == "changed since apply"
    checks = {check["name"]: check for check in run("doctor", "--repo", applied, "--json").body["checks"]}
    assert (checks["plan"]["verdict"], checks["plan"]["fix"]) == ("warn", "run `skewless plan`, then `skewless apply`")


def test_validate_fails_with_the_table_and_exit_code_5(applied: Path) -> None:
    path = applied / "data/card_days.parquet"
    rows = pq.read_table(path)
    bad = pc.if_else(pc.equal(rows["card_id"], 9_007_199_254_740_993), -1, rows["payments_7d"])
    pq.write_table(rows.set_column(rows.column_names.index("payments_7d"), "payments_7d", bad), path)
    expected = pc.sum(pc.equal(bad, -1)).as_py()
    said = run("validate", "card_days", "--repo", applied, "--json")
    assert said.code == 5
    (report,) = said.body["reports"]
    assert [result["success"] for result in report["results"]] == [True, False]
    assert report["results"][1]["unexpected_count"] == expected
    assert said.body["error"]["kind"] == "gate"
    shown = run("validate", "card_days", "--repo", applied)
    assert shown.code == 5
    assert "FAIL " in shown.stdout
    assert shown.stderr.startswith("error: batch 'card_days'")
    assert run("materialize", "--repo", applied).code == 5
    assert run("materialize", "--no-check", "--repo", applied).code == 0


def test_validate_names_what_it_knows(applied: Path) -> None:
    said = run("validate", "nosuch", "--repo", applied, "--json")
    assert (said.code, said.body["error"]["value"]) == (6, "nosuch")


def test_train_that_misses_its_gate_exits_5_and_keeps_the_champion(walked: Path, tmp_path: Path) -> None:
    repo = Path(shutil.copytree(walked, tmp_path / "p", ignore=shutil.ignore_patterns("redis")))
    edit(repo, "floor=0.6", "floor=0.999", file="models.py")
    done("apply", "--repo", repo)
    before = done("status", "--repo", repo)["models"][0]
    said = run("train", "--repo", repo, "--json")
    assert said.code == 5
    (model,) = said.body["models"]
    assert model["promoted"] is False
    assert "misses the floor" in model["reason"]
    assert model["metrics"]["auc"] > model["metrics"]["baseline_auc"] == 0.5
    after = done("status", "--repo", repo)["models"][0]
    assert (after["champion"], after["moves"]) == (before["champion"], before["moves"])
    assert after["versions"] == before["versions"] + 1
    shown = run("train", "fraud", "--repo", repo)
    assert shown.code == 5
    assert "log_loss" in shown.stdout
    assert f"fraud: trained again: version {before['champion']} has the same definitions" in shown.stdout


def test_replay_proves_and_finds(walked: Path, tmp_path: Path) -> None:
    done("predict", "--row", json.dumps(ROWS), "--repo", walked)
    body = done("replay", "fraud", "--repo", walked)
    assert (body["ok"], body["different"]) == (True, 0)
    assert body["compared"] >= len(ROWS)
    repo = Path(shutil.copytree(walked, tmp_path / "p", ignore=shutil.ignore_patterns("redis")))
    path = min((repo / ".skewless/predictions").glob("*.parquet"))
    log = pq.read_table(path)
    scores = pa.array([log["score"][0].as_py() + 1e-12, *log["score"].to_pylist()[1:]], pa.float64())
    rewrite(path, log.set_column(log.column_names.index("score"), "score", scores))
    said = run("replay", "--repo", repo, "--json")
    assert (said.code, said.body["ok"], said.body["different"]) == (5, False, 1)
    assert run("replay", "nosuch", "--repo", walked, "--json").code == 6


def test_one_round_of_the_scheduler_moves_the_alias(walked: Path) -> None:
    before = done("status", "--repo", walked)["models"][0]["moves"]
    said = done("scheduler", "--only", "materialize", "--only", "retrain", "--repo", walked)
    jobs = {job["job"]: job["ok"] for job in said["jobs"]}
    assert jobs == {"materialize": True, "retrain fraud": True}
    assert done("status", "--repo", walked)["models"][0]["moves"] == before + 1
