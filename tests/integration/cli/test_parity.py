"""Parity on the command line, and what status, doctor, train and the metrics say of windowed views."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from skewless.contract.clock import OffsetClock
from skewless.infra.reads.online.private_server import PrivateServer
from tests.worlds.command_line import done, run
from tests.worlds.windowed import MINUTE, NOW, STAMP, write_repo


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a log and a plan; without its online store. Only ever copied."""
    repo = write_repo(tmp_path_factory.mktemp("windowed") / "p")
    done("apply", "--repo", repo)
    done("import", "--repo", repo)
    done("materialize", "--no-check", "--repo", repo)
    PrivateServer(repo / ".skewless").stop()
    return repo


@pytest.fixture(scope="module")
def online(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose online store is filled, and does not run. Only ever copied, too."""
    place = copied(filled, tmp_path_factory.mktemp("online"), "redis")
    OffsetClock.create(place / "clock").set(NOW)
    done("materialize", "--no-check", "--repo", place)
    done("backfill", "--repo", place)
    PrivateServer(place / ".skewless").stop()
    return place


@pytest.fixture
def repo(online: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy whose online store runs; its clock goes on."""
    place = copied(online, tmp_path, "server.json")
    PrivateServer(place / ".skewless").ensure()
    yield place
    PrivateServer(place / ".skewless").stop()


def copied(repo: Path, folder: Path, *ignored: str) -> Path:
    """Copy a project, with a clock of its own."""
    place = Path(shutil.copytree(repo, folder / "p", ignore=shutil.ignore_patterns(*ignored, "__pycache__")))
    (place / "skewless.yaml").write_text(f"clock: file:{place}/clock\nthreads: 1\n")
    return place


def states(repo: Path) -> tuple[redis.Redis, list[bytes]]:
    """Return the store and the keys of windowed states."""
    client = redis.Redis.from_url(str(PrivateServer(repo / ".skewless").status().url))
    return client, sorted(key for key in client.scan_iter("*{carrier|*") if b".1:" in key)


def spoil(repo: Path) -> None:
    client, keys = states(repo)
    client.delete(keys[0])
    client.close()


def finding(repo: Path) -> dict[str, str]:
    checks = run("doctor", "--repo", repo, "--json").body["checks"]
    (found,) = [check for check in checks if check["name"] == "window carrier_now"]
    return dict(found)


def test_a_clean_store_is_equal(repo: Path) -> None:
    body = done("parity", "--repo", repo)
    assert (body["ok"], body["mismatches"], body["by_cause"]) == (True, 0, {})
    assert body["views"]["carrier_now"] | {"kind": "windowed", "compared": 6} == body["views"]["carrier_now"]
    assert body["views"]["facts"] | {"kind": "batch", "compared": 6} == body["views"]["facts"]
    said = run("parity", "carrier_now", "--sample", "1", "--seed", "3", "--repo", repo)
    assert (said.code, said.stdout) == (0, "carrier_now: 4 entities compared, all equal, bit for bit\n")


def test_a_mismatch_is_exit_5_until_it_is_repaired(repo: Path) -> None:
    spoil(repo)
    said = run("parity", "--repo", repo, "--json")
    assert (said.code, said.body["ok"], said.body["by_cause"]) == (5, False, {"absent": 1})
    assert said.body["examples"][0]["entity"] == {"carrier": "AA"}
    spoken = run("parity", "--repo", repo)
    assert spoken.code == 5
    assert "1 MISMATCH (1 absent)" in spoken.stdout
    assert "`skewless parity carrier_now --repair`" in spoken.stdout
    assert done("status", "--repo", repo)["windows"][0]["parity_mismatches"] == 1
    repaired = done("parity", "--repair", "--repo", repo)
    assert (repaired["mismatches"], repaired["repaired"], repaired["left"]) == (1, 1, 0)
    assert done("parity", "--repo", repo)["mismatches"] == 0


def test_a_view_that_is_unknown_is_refused(repo: Path) -> None:
    said = run("parity", "weather", "--repo", repo, "--json")
    assert (said.code, said.body["error"]["value"]) == (6, "weather")


def test_a_model_with_a_mismatch_in_its_views_is_not_promoted(repo: Path) -> None:
    spoil(repo)
    run("parity", "--repo", repo)
    said = run("train", "--repo", repo, "--json")
    assert said.code == 5
    assert "parity found 1 mismatch in view 'carrier_now'" in said.body["error"]["message"]
    done("parity", "--repair", "--repo", repo)
    assert done("train", "--repo", repo)["models"][0]["promoted"]


def test_training_tells_how_the_time_modes_differ(repo: Path) -> None:
    body = done("train", "--repo", repo)["models"][0]
    gap = body["mode_gap"]
    assert 0.0 < gap["features"]["carrier_now"]["landings_1h"] < 1.0
    assert (gap["rows"], gap["sources"]["landings"]["late"]) == (body["rows"]["test"], 0.1)
    shown = run("train", "--repo", repo).stdout
    assert "carrier_now: events that became known late change " in shown
    assert "landings: 10.0% of 600 events became known more than 10 s after their event time" in shown


def test_a_dataset_tells_it_too(repo: Path, tmp_path: Path) -> None:
    moments = pa.array([NOW - i * MINUTE for i in range(60)], pa.int64()).cast(STAMP)
    pq.write_table(pa.table({"carrier": ["AA"] * 60, "event_timestamp": moments}), tmp_path / "asked.parquet")
    words = ("dataset", "--entities", tmp_path / "asked.parquet", "--service", "air", "--out", tmp_path / "out")
    assert done(*words, "--dry-run", "--repo", repo)["mode_gap"] is None
    assert done(*words, "--repo", repo)["mode_gap"]["rows"] == 60


def test_status_shows_windows_and_sources(repo: Path) -> None:
    body = done("status", "--repo", repo)
    (window,), (source,) = body["windows"], body["sources"]
    assert (window["view"], window["generation"], window["log_rows"], window["lag"]) == ("carrier_now", 1, 600, 0)
    assert (window["online_current"], window["parity_mismatches"]) == (True, None)
    assert [part["log_rows"] for part in window["partitions"]] == [600]
    assert source | {"source": "landings", "kind": "push", "rejected": 0, "late_share": 0.1} == source
    assert (source["delay_p50_s"], source["delay_p99_s"], source["views"]) == (1.0, 1200.0, ["carrier_now"])
    shown = run("status", "--repo", repo).stdout
    assert "windowed views" in shown
    assert "event sources" in shown


def test_status_without_a_store_or_states_says_what_it_does_not_know(filled: Path) -> None:
    body = done("status", "--repo", filled)
    (window,) = body["windows"]
    assert (window["generation"], window["lag"], window["online_current"]) == (None, None, None)


def test_a_missing_file_of_an_event_log_hides_nothing_else_of_a_status(filled: Path, tmp_path: Path) -> None:
    place = copied(filled, tmp_path)
    before = done("status", "--repo", place)
    path = next((place / ".skewless/log/events").rglob("*.parquet"))
    path.unlink()
    answer = run("status", "--repo", place, "--json")
    (source,) = answer.body["sources"]
    unknown = dict.fromkeys(("rejected", "late_share", "delay_p50_s", "delay_p99_s"))
    assert (answer.code, {name: source[name] for name in unknown}) == (7, unknown)
    assert path.name in source["problem"]
    (known,) = before["sources"]
    assert answer.body == {**before, "sources": [{**known, **unknown, "problem": source["problem"]}]}


def test_the_doctor_wants_states_that_keep_up(repo: Path, filled: Path) -> None:
    assert finding(repo)["verdict"] == "ok"
    missing = finding(filled)
    assert (missing["verdict"], "has no states" in missing["detail"]) == ("warn", True)
    client, _ = states(repo)
    (marker,) = [key for key in client.scan_iter("*applied/*") if b".1:" in key]
    client.set(marker, b"590")
    assert finding(repo)["verdict"] == "ok"  # they wait for less than a minute
    OffsetClock.create(repo / "clock").set(NOW + 2 * MINUTE)
    behind = finding(repo)
    assert (behind["verdict"], "9 rows of " in behind["detail"]) == ("warn", True)
    client.delete(marker)
    assert "has no rows of" in finding(repo)["detail"]
    client.close()
