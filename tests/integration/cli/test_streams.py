"""Events from files and streams to live windows, on the command line."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from structlog.testing import capture_logs

from skewless.contract.errors import StoreError
from skewless.infra.ingest.streams import importing
from skewless.infra.ingest.streams.importing import Importer
from skewless.infra.ingest.streams.source_counts import SourceCounts
from skewless.infra.ingest.streams.worker_group import collect_streams
from skewless.infra.log.catalog import log_partitions
from skewless.infra.log.log_columns import REJECT
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.host.metrics import serve_metrics
from skewless.infra.platform.storage.database import Database, Row, Value
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.data import events
from skewless.project import Project
from tests.worlds.command_line import done, fingerprint, run
from tests.worlds.edits import edit
from tests.worlds.windowed import CARRIERS, COLUMNS, MINUTE, NOW, STAMP, copied_repo, write_repo


@pytest.fixture(scope="module")
def streamed_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that is applied; only ever copied."""
    repo = write_repo(tmp_path_factory.mktemp("repo") / "p")
    done("apply", "--repo", repo)
    return repo


@pytest.fixture
def repo(streamed_repo: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy, with the clock of that project."""
    with copied_repo(streamed_repo, tmp_path / "p") as place:
        yield place


def logged(repo: Path) -> list[dict[str, object]]:
    """Return all rows of the log."""
    state = ProjectState(repo / ".skewless")
    return [
        row
        for name in log_partitions(state, "landings")
        for rows in PartitionLog(state, name).read()
        for row in rows.to_pylist()
    ]


def landing(i: int, **fields: object) -> dict[str, object]:
    return {"carrier": CARRIERS[i % 3], "arr_delay": i / 2, "landed_at": NOW - (50 - i) * MINUTE, **fields}


def write_files(folder: Path, rows: list[dict[str, object]]) -> Path:
    folder.mkdir()
    table = pa.Table.from_pylist(rows)
    stamps = table["landed_at"].cast(STAMP)
    pq.write_table(table.set_column(table.column_names.index("landed_at"), "landed_at", stamps), folder / "a.parquet")
    return folder


def test_looking_changes_nothing(repo: Path) -> None:
    before = fingerprint(repo)
    (file,) = done("import", "--dry-run", "--repo", repo)["files"]
    assert (file["source"], file["file"], file["accepted"]) == ("landings", "data/landings.parquet", 600)
    (view,) = done("backfill", "--dry-run", "--repo", repo)["views"]
    assert view == {"view": "carrier_now", "generation": None, "states": None, "events": 0}
    assert fingerprint(repo) == before


def test_history_is_taken_in_once(repo: Path) -> None:
    assert done("import", "--repo", repo)["sources"] == [
        {
            "source": "landings",
            "files": 1,
            "accepted": 600,
            "rejected": 0,
            "duplicates": 0,
            "present": 0,
            "states": "none",
        }
    ]
    again = done("import", "landings", "--repo", repo)["sources"][0]
    assert (again["accepted"], again["present"]) == (0, 600)
    (file,) = done("import", "--dry-run", "--repo", repo)["files"]
    assert (file["accepted"], file["present"]) == (0, 600)
    assert len(logged(repo)) == 600


def test_a_file_that_changed_since_it_was_taken_in_is_refused(repo: Path) -> None:
    done("import", "--repo", repo)
    place = repo / "data/landings.parquet"
    rows = pq.read_table(place)
    pq.write_table(rows.slice(1), place)
    for more in ((), ("--dry-run",)):
        said = run("import", "--repo", repo, "--json", *more)
        assert said.code == 4
        assert said.body["error"]["problem"] == "has a file that was imported and has changed since"
        assert said.body["error"]["value"] == str(place)
    assert len(logged(repo)) == 600


def test_an_import_that_was_stopped_goes_on(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH_ROWS", 250)
    with Project(repo) as project:
        (source,) = project.streams.sources()
        importer = Importer(streams=project.streams, source=source, repo=project.repo)

        def stop(_file: str, rows: int) -> None:
            if rows >= 500:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            importer.run(stop)
    assert len(logged(repo)) == 500
    (after,) = done("import", "--repo", repo)["sources"]
    assert (after["accepted"], after["present"]) == (100, 500)
    wanted = pq.read_table(repo / "data/landings.parquet")["arr_delay"].to_pylist()
    assert [row["arr_delay"] for row in logged(repo)] == wanted


def test_history_that_cannot_be_accepted_is_in_quarantine(repo: Path) -> None:
    place = repo / "data/landings.parquet"
    rows = pq.read_table(place).slice(0, 3).to_pylist()
    rows[0]["carrier"] = None
    rows[1]["arr_delay"] = 1e300
    table = pa.Table.from_pylist(rows, schema=pq.read_schema(place))
    pq.write_table(table, place)
    (done_,) = done("import", "--repo", repo)["sources"]
    assert (done_["accepted"], done_["rejected"]) == (1, 2)
    assert [row[REJECT] for row in logged(repo)] == [
        "no view has a complete key: null among the fields 'carrier'",
        "column 'arr_delay' is too large for view 'carrier_now' to sum exactly",
        None,
    ]


def test_files_are_replayed_as_a_stream_and_seen_by_reads(repo: Path) -> None:
    done("import", "--repo", repo)
    files = write_files(repo / "later", [landing(i) for i in range(40)])
    (counts,) = done("stream", "--replay", files, "--until-idle", "--repo", repo)["sources"]
    assert (counts["source"], counts["read"], counts["accepted"], counts["lag"]) == ("landings", 40, 40, 0)
    again = done("stream", "landings", "--replay", files, "--until-idle", "--repo", repo)["sources"][0]
    assert again["read"] == 0
    ask = ("get", "carrier_now", "--key", "carrier=AA", "--repo", repo)
    now = done(*ask)
    then = done(*ask, "--as-of", str(now["t_us"] // 1_000 * 1_000))["views"][0]
    online = now["views"][0]["online"]["features"]
    assert online == then["knowledge"]["features"] == then["event_time"]["features"]
    # 14 replayed, and of the history one in three of the last hour's 25, or one more for the hop
    assert online["landings_1h"] in {22.0, 23.0}
    # At noon, when they had happened, they had not been sent yet.
    before = done(*ask, "--as-of", str(NOW))["views"][0]
    assert before["knowledge"]["features"]["landings_1h"] == before["event_time"]["features"]["landings_1h"] - 14


def test_events_of_a_push_source_come_through_redis(repo: Path) -> None:
    bad = [b"{", b'{"carrier": "AA", "arr_delay": "x", "landed_at": 1}']
    with Project(repo) as project:
        sender = project.streams.sender(project.streams.sources()[0])
        sender.send([*(json.dumps(landing(i)).encode() for i in range(10)), *bad])
        sender.close()
        (counts,) = done("stream", "--until-idle", "--repo", repo)["sources"]
        assert (counts["accepted"], counts["rejected"], counts["trouble"]) == (10, 2, None)
        read = project.online_features("air", {"carrier": ["AA", "nobody"]})
    names = [label for label in read.labels if label.startswith("carrier_now")]
    counts = read.matrix[:, read.labels.index("carrier_now__landings_1h")]
    assert len(names) == 2
    assert counts.tolist() == [4.0, 0.0]


def identify(repo: Path, more: str = "") -> None:
    """Give the landings an event id."""
    edit(repo, COLUMNS, f'"skewless.event_id": "landing", {more}{COLUMNS}, landing string')
    done("apply", "--repo", repo)


def test_an_event_id_counts_once_whichever_partition_it_comes_through(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_STREAM_PARTITIONS", "3")
    (repo / "data/landings.parquet").unlink()
    identify(repo)
    with Project(repo) as project:
        sender = project.streams.sender(project.streams.sources()[0])
        for _ in range(6):
            sender.send([json.dumps(landing(1, landing="a")).encode()])
        sender.close()
        (counts,) = done("stream", "--until-idle", "--repo", repo)["sources"]
    assert (counts["read"], counts["accepted"], counts["duplicates"], counts["partitions"]) == (6, 1, 5, 3)
    assert [row["landing"] for row in logged(repo)] == ["a"]


def test_a_database_that_is_away_at_the_start_is_waited_for(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_RETRY_SECONDS", 0.02)
    query, stop, calls = Database.query, threading.Event(), []

    def fail_at_first(database: Database, sql: str, *values: Value) -> list[Row]:
        calls.append(sql)
        if len(calls) < 20:
            raise StoreError("database", "is unavailable", fix="start it")
        return query(database, sql, *values)

    with Project(repo) as project, capture_logs() as lines:
        monkeypatch.setattr(Database, "query", fail_at_first)
        with pytest.raises(StoreError, match="is unavailable"):
            project.stream(until_idle=True)
        assert len(calls) < 20
        (counts,) = project.stream(stop=stop, on_counts=lambda _: stop.set())
        assert counts.trouble is None
        assert next(line["error"] for line in lines if line["event"] == "stream_not_started").startswith("database")
        assert project.stream(stop=stop) == []  # it was stopped before it began


def test_unknown_sources_are_refused(repo: Path) -> None:
    for verb in ("import", "stream"):
        said = run(verb, "nowhere", "--repo", repo, "--json")
        assert said.code == 6
        assert said.body["error"]["fix"] == "use one of: landings"


class WaitingSource(Collector):
    """The metrics of a source whose worker cannot continue."""

    def collect(self) -> Iterator[Metric]:
        """Yield them."""
        return collect_streams([SourceCounts(source="s", read=3, accepted=2, trouble="disk")])


def test_metrics_are_served_on_loopback() -> None:
    port = serve_metrics(WaitingSource(), "127.0.0.1", 0, "--metrics-port")
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    assert 'skewless_stream_read_total{source="s"} 3.0' in text
    assert 'skewless_stream_waiting{source="s"} 1.0' in text
    assert "skewless_stream_lag{" not in text
