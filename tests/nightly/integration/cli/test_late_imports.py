"""SEMANTICS 4.4: an event that is imported after states were served is known when it is applied."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from skewless.contract.clock import OffsetClock
from skewless.infra.log.catalog import log_partitions
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import DECLARED
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.private_server import PrivateServer
from tests.integration.cli.import_repo import imported, landings, logged, write_folder_repo
from tests.worlds.command_line import done
from tests.worlds.windowed import CARRIERS, HOUR, MINUTE, NOW


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Path]:
    repo = write_folder_repo(tmp_path / "p")
    yield repo
    PrivateServer(repo / ".skewless").stop()


def get(repo: Path, *more: str) -> dict[str, Any]:
    said = done("get", "carrier_now", "--key", "carrier=AA", "--repo", repo, *more)
    return dict(said["views"][0]) | {"t": str(said["t_us"])}


def test_a_late_import_is_known_from_its_end_for_training_reads_and_replay(repo: Path) -> None:
    imported(repo)
    done("materialize", "--no-check", "--repo", repo)
    done("backfill", "--repo", repo)
    done("train", "--repo", repo)
    row = json.dumps([{"carrier": carrier} for carrier in CARRIERS])
    done("predict", "--row", row, "--repo", repo)
    read = get(repo)
    before = read["online"]["features"]
    # These events happened and were written before the predictions, but are imported after them.
    pq.write_table(landings(60, written=NOW - 5 * MINUTE), repo / "data/landings/late.parquet")
    done_ = imported(repo)
    assert (done_["accepted"], done_["states"]) == (60, "applied")
    after = get(repo)["online"]["features"]
    assert after["landings_1h"] == before["landings_1h"] + 20
    done("predict", "--row", row, "--repo", repo)
    body = done("replay", "--repo", repo)
    assert (body["ok"], body["different"], body["compared"]) == (True, 0, 6)
    assert body["training"]["knowledge"]["different"] == 0
    then = get(repo, "--as-of", read["t"])
    assert then["knowledge"]["features"]["landings_1h"] == before["landings_1h"]
    assert then["event_time"]["features"]["landings_1h"] == before["landings_1h"] + 20
    # Compaction keeps what it says.
    state = ProjectState(repo / ".skewless")
    for name in log_partitions(state, "landings"):
        compact(PartitionLog(state, name), keep=0)
    body = done("replay", "--repo", repo)
    assert (body["ok"], body["training"]["knowledge"]["different"]) == (True, 0)
    assert get(repo, "--as-of", read["t"])["knowledge"]["features"] == then["knowledge"]["features"]
    assert done("parity", "--repo", repo)["ok"]


def test_what_nobody_has_applied_is_not_known_and_a_worker_applies_it_by_itself(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(repo)
    done("backfill", "--repo", repo)
    before = get(repo)["online"]["features"]["landings_1h"]
    pq.write_table(landings(60), repo / "data/landings/late.parquet")
    with monkeypatch.context() as away:
        away.setenv("SKEWLESS_REDIS_URL", "redis://127.0.0.1:1")
        (source,) = done("import", "--repo", repo)["sources"]
    assert (source["accepted"], source["states"]) == (60, "behind")
    tomorrow, clock = str(NOW + HOUR // 2), OffsetClock(repo / "clock")
    clock.set(clock.now_us() + HOUR)
    then = get(repo, "--as-of", tomorrow)
    assert then["knowledge"]["features"]["landings_1h"] < then["event_time"]["features"]["landings_1h"]
    clock.set(clock.now_us() - HOUR)  # not to NOW: the states are from after it
    monkeypatch.setattr("skewless.infra.ingest.streams.worker_group._IDLE_S", 4.0)
    done("stream", "--until-idle", "--repo", repo)
    assert get(repo)["online"]["features"]["landings_1h"] == before + 20


def test_history_says_that_its_known_time_was_declared(repo: Path) -> None:
    imported(repo)
    done("backfill", "--repo", repo)
    pq.write_table(landings(6), repo / "data/landings/late.parquet")
    imported(repo)
    told = Counter(logged(repo, DECLARED))
    assert told == Counter({True: 600, None: 6})
