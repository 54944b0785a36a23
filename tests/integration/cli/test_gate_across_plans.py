"""After views have changed, an older version is still measured: on the values of its own views."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.infra.reads.online.private_server import PrivateServer
from tests.worlds.command_line import done
from tests.worlds.edits import edit
from tests.worlds.windowed import MEAN, write_repo

MORE = '        Aggregation(column="arr_delay", function="max", time_window=HOUR, name="worst_1h"),\n'
CHANGES = {
    "an aggregation more": (
        '        Aggregation(column="carrier", function="count"',
        MORE + '        Aggregation(column="carrier", function="count"',
    ),
    "a window of another length": (MEAN, MEAN.replace("HOUR", "2 * HOUR")),
    "a latest-value view less": ("features=[carrier_now, facts]", "features=[carrier_now]"),
    "a windowed view less": ("features=[carrier_now, facts]", "features=[facts]"),
}
# In make test, test_across_plans.py has views less; what a window of another length lacks, one more does not lack.
EASIER = {"an aggregation more", "a latest-value view less", "a windowed view less"}


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Path]:
    repo = write_repo(tmp_path / "p")
    yield repo
    PrivateServer(repo / ".skewless").stop()


def put_in_force(repo: Path) -> None:
    done("apply", "--repo", repo)
    done("import", "--repo", repo)
    done("materialize", "--no-check", "--repo", repo)
    done("backfill", "--repo", repo)


@pytest.mark.parametrize(
    "change", [pytest.param(change, marks=pytest.mark.soak if change in EASIER else ()) for change in CHANGES]
)
def test_the_champion_of_older_views_is_compared(repo: Path, change: str) -> None:
    put_in_force(repo)
    (first,) = done("train", "--repo", repo)["models"]
    assert first["promoted"]
    edit(repo, *CHANGES[change])
    put_in_force(repo)
    (second,) = done("train", "--repo", repo)["models"]
    assert second["decision"]["champion"] == first["decision"]["candidate"]
    assert second["decision"]["gain"]["rows"] == first["metrics"]["rows"]
    assert second["decision"]["baseline"] == 0.5
    back = done("promote", "late", "000001", "--dry-run", "--repo", repo)
    assert back["decision"]["candidate"] == first["decision"]["candidate"]
    assert back["decision"]["champion"] == second["decision"]["candidate"]
