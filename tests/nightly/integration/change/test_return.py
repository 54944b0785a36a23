"""Versions come back whose views nothing has fed meanwhile: what they read is filled first, or they stay away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.clock import OffsetClock
from skewless.contract.errors import StalePlanError
from skewless.contract.settings import Settings
from skewless.infra.definitions.plans.needed_views import StoredTargetVersions, TargetVersions
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.project import Project
from skewless.serving.models.table import ModelTable
from tests.worlds.command_line import done, run
from tests.worlds.edits import edit
from tests.worlds.windowed import CARRIERS, MINUTE, STAMP, copied_repo, trained_repo

FLEET = 'Field(name="fleet", dtype=Float64)'
MORE = f'{FLEET}, Field(name="more", dtype=Float64)'
MODEL, OLD, NEW = "late", "000001", "000002"
PROMOTE, ROLL_BACK = ("promote", MODEL, OLD), ("rollback", MODEL)


@pytest.fixture(scope="module")
def two_plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose first version reads views that nothing reads since the second one is champion; only copied."""
    repo = trained_repo(tmp_path_factory.mktemp("two_plans") / "p", "keep_versions: 1\n")
    edit(repo, FLEET, MORE)
    write_facts(repo, fleet=1.0, more=2.0)
    for words in (("apply",), ("materialize",), ("train",)):
        done(*words, "--repo", repo)
    assert champion(repo) == NEW
    PrivateServer(repo / ".skewless").stop()
    return repo


@pytest.fixture
def repo(two_plans: Path, tmp_path: Path) -> Iterator[Path]:
    with copied_repo(two_plans, tmp_path / "p") as repo:
        yield repo


def champion(repo: Path) -> str | None:
    return PackageStore.of(ProjectState(repo / ".skewless"), Settings()).aliases.get(MODEL, "champion")


def write_facts(repo: Path, **values: float) -> None:
    """Write the table with one new row of each carrier, as of now."""
    place, now = repo / "data/facts.parquet", OffsetClock(repo / "clock").now_us()
    stamps = pa.array([now] * len(CARRIERS), pa.int64()).cast(STAMP)
    columns = {name: [value] * len(CARRIERS) for name, value in values.items()}
    rows = pa.table({"carrier": CARRIERS, **columns, "event_time": stamps, "created": stamps})
    pq.write_table(rows, place)


def fill(repo: Path, **values: float) -> None:
    """Write new rows and materialise what is fed."""
    clock = OffsetClock(repo / "clock")
    clock.set(clock.now_us() + MINUTE)
    write_facts(repo, **values)
    done("materialize", "--repo", repo)


def read(repo: Path) -> set[float]:
    """Return what the champion reads of the table."""
    with Project(repo) as project:
        found = project.predict(MODEL, [{"carrier": carrier} for carrier in CARRIERS])
    return set(found["facts__fleet"].to_pylist())


@pytest.mark.parametrize("words", [pytest.param(PROMOTE, marks=pytest.mark.soak), ROLL_BACK], ids=" ".join)
def test_what_comes_back_reads_what_was_written_meanwhile(repo: Path, words: tuple[str, ...]) -> None:
    fill(repo, fleet=7.0, more=8.0)
    assert read(repo) == {7.0}
    done(*words, "--repo", repo)
    assert (champion(repo), read(repo)) == (OLD, {7.0})
    # And it is fed from then on.
    fill(repo, fleet=9.0, more=8.0)
    assert read(repo) == {9.0}
    assert done("replay", "--repo", repo)["ok"]
    assert done("parity", "--repo", repo)["ok"]


@pytest.mark.parametrize("words", [PROMOTE, pytest.param(ROLL_BACK, marks=pytest.mark.soak)], ids=" ".join)
def test_what_can_no_longer_be_fed_stays_away(repo: Path, words: tuple[str, ...]) -> None:
    edit(repo, MORE, MORE.removeprefix(f"{FLEET}, "))
    write_facts(repo, more=2.0)
    for verb in (("apply",), ("materialize",), ("train",)):
        done(*verb, "--repo", repo)
    now = champion(repo)
    assert now == "000003"
    said = run(*words, "--repo", repo, "--json")
    assert said.code != 0
    assert "fleet" in str(said.body["error"])
    assert champion(repo) == now


async def test_a_server_opens_nothing_that_nothing_feeds(repo: Path) -> None:
    state = repo / ".skewless"
    with Project(repo) as project:
        reader, store = RedisReader(project.redis_url), project.store
    try:
        table = ModelTable(repo=repo, state=ProjectState(state), store=store, online=reader, keep=1)
        await table.load()
        with pytest.raises(StalePlanError, match=f"nothing updates.*'facts'.*skewless promote {MODEL} {OLD}"):
            await table.serve_version(MODEL, OLD)
        with pytest.raises(StalePlanError, match="nothing updates"):
            await table.roll_back(MODEL, reason="by hand", now_us=1)
        assert table.open_versions(MODEL) == [champion(repo)] == [NEW]
        assert StoredTargetVersions(ProjectState(state)).read() == TargetVersions()
        done("promote", MODEL, OLD, "--repo", repo)
        await table.refresh()
        assert table.get(MODEL).version == OLD
    finally:
        await reader.close()
