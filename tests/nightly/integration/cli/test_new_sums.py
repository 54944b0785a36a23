"""A view that sums a column nobody summed before: the log may hold events that it cannot sum."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.infra.reads.online.private_server import PrivateServer
from skewless.project import Project
from tests.worlds.command_line import done, fingerprint, run
from tests.worlds.edits import edit
from tests.worlds.windowed import MEAN, MINUTE, NOW, write_repo

MAX = MEAN.replace("mean", "max")
VIEW = 'timestamp_field="landed_at",\n    aggregations'
WHERE = """timestamp_field="landed_at",
    udf=sane.delays,
    udf_string="",
    tags={"skewless.inputs": "arr_delay", "skewless.derived": "sane bool", "skewless.where": "sane"},
    aggregations"""
SANE = """\
import numpy as np


def delays(events):
    with np.errstate(all="ignore"):
        return {"sane": np.abs(events["arr_delay"]) < 1e6}
"""


@pytest.fixture(scope="module")
def filled_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project whose log holds two events of 1e18 minutes, which no view summed; only ever copied."""
    repo = write_repo(tmp_path_factory.mktemp("sums") / "p")
    edit(repo, MEAN, MAX)
    edit(repo, '"skewless.scale.arr_delay": "1"', '"skewless.scale.arr_delay": "4"')
    place = repo / "data/landings.parquet"
    rows = pq.read_table(place)
    delays = rows["arr_delay"].to_pylist()
    delays[3] = delays[300] = 1e18
    pq.write_table(rows.set_column(rows.column_names.index("arr_delay"), "arr_delay", pa.array(delays)), place)
    for verb in ("apply", "import", "backfill"):
        done(verb, "--repo", repo)
    edit(repo, MAX, MEAN)
    PrivateServer(repo / ".skewless").stop()
    return repo


@pytest.fixture
def repo(filled_repo: Path, tmp_path: Path) -> Iterator[Path]:
    """Return a copy of it, with its online store."""
    place = Path(shutil.copytree(filled_repo, tmp_path / "p", ignore=shutil.ignore_patterns("__pycache__")))
    yield place
    PrivateServer(place / ".skewless").stop()


def test_plan_and_apply_name_view_column_count_and_remedy(repo: Path) -> None:
    before = fingerprint(repo / ".skewless")
    for verb in ("plan", "apply"):
        said = run(verb, "--repo", repo, "--json")
        error = said.body["error"]
        assert said.code == 4
        assert error["thing"] == "windowed view 'carrier_now' column 'arr_delay'"
        assert error["problem"] == "has values in accepted events that are too large for an exact sum"
        assert error["value"] == "2 events"
        assert error["fix"].startswith("lower the tag skewless.scale.arr_delay, which is 4, or exclude these events")
    assert {name: kept for name, kept in fingerprint(repo / ".skewless").items() if name in before} == before


def test_fewer_digits_are_accepted(repo: Path) -> None:
    edit(repo, '"skewless.scale.arr_delay": "4"', '"skewless.scale.arr_delay": "0"')
    done("plan", "--repo", repo)
    done("apply", "--repo", repo)


def test_what_is_left_out_by_a_filter_is_accepted_and_new_events_are_judged(repo: Path) -> None:
    edit(repo, VIEW, WHERE)
    edit(repo, "from datetime", "import sane\nfrom datetime")
    (repo / "sane.py").write_text(SANE)
    for verb in ("plan", "apply", "backfill"):
        done(verb, "--repo", repo)
    landings = [{"carrier": "AA", "arr_delay": delay, "landed_at": NOW - MINUTE} for delay in (2e18, 5.5)]
    with Project(repo) as project:
        sender = project.streams.sender(project.streams.sources()[0])
        sender.send([json.dumps(landing).encode() for landing in landings])
        sender.close()
    (counts,) = done("stream", "--until-idle", "--repo", repo)["sources"]
    # Of the first the filter says that it does not count: nothing is to be summed.
    assert (counts["accepted"], counts["rejected"]) == (2, 0)
    read = done("get", "carrier_now", "--key", "carrier=AA", "--repo", repo)["views"][0]["online"]
    assert read["features"]["mean_delay_1h"] is not None
