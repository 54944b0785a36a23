"""Views that nothing reads any more go after a time of grace, and come back from the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest
import redis

from skewless.contract.clock import OffsetClock
from skewless.infra.definitions.plans.retirement import ViewLifecycle, read_lifecycles
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.infra.reads.online.redis_store import RedisWriter
from skewless.infra.reads.online.servers import LastArgument
from skewless.project import Project
from tests.worlds.command_line import done, run
from tests.worlds.edits import edit
from tests.worlds.windowed import HOUR, MEAN, copied_repo, trained_repo

FLEET = 'Field(name="fleet", dtype=Float64)'


@pytest.fixture(scope="module")
def one_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a champion; only copied."""
    repo = trained_repo(tmp_path_factory.mktemp("one_version") / "p", "keep_versions: 1\nretire_hours: 10\n")
    PrivateServer(repo / ".skewless").stop()
    return repo


@pytest.fixture
def repo(one_version: Path, tmp_path: Path) -> Iterator[Path]:
    with copied_repo(one_version, tmp_path / "p") as repo:
        yield repo


def keys(project: Project) -> set[str]:
    """Return the view hashes that the store holds anything of."""
    with_store = RedisWriter(project.redis_url)
    try:
        names = [key.decode() for client in with_store._servers.masters() for key in client.scan_iter("sk:air:*")]
    finally:
        with_store.close()
    return {name.split(":")[2].partition(".")[0] for name in names}


def lives(repo: Path) -> dict[str, str]:
    return {life.hash: life.stage for life in read_lifecycles(ProjectState(repo / ".skewless"))}


def test_states_go_when_nothing_may_read_them_and_come_back_from_the_log(repo: Path) -> None:
    with Project(repo) as project:
        old = {view.hash for view in project.needed.plan.all_views}
        done("housekeeping", "--repo", repo)
        assert lives(repo) == dict.fromkeys(old, "needed")
        edit(repo, MEAN, MEAN.replace('"mean"', '"max"'))
        edit(repo, FLEET, f'{FLEET}, Field(name="more", dtype=Float64)')
        add_column(repo)
        done("apply", "--repo", repo)
        # The champion reads the old ones; they are fed as long as it does.
        project.refresh()
        assert old < project.needed.readers.keys()
        done("train", "--repo", repo)
        assert project.store.aliases.get("late", "champion") == "000002"
        new = set(project.needed.readers) - old
        assert len(new) == 2
        assert done("housekeeping", "--repo", repo)["retired"] == 0
        assert lives(repo) == dict.fromkeys(old, "unneeded") | dict.fromkeys(new, "needed")
        shown = done("status", "--repo", repo)
        assert {item["hash"] for item in shown["unneeded"]} == old
        pass_hours(repo, 9)
        assert done("housekeeping", "--repo", repo)["retired"] == 0
        assert old | new <= keys(project)
        pass_hours(repo, 2)
        assert done("housekeeping", "--repo", repo)["retired"] == 2
        assert not old & keys(project)
        assert new <= keys(project)
        assert lives(repo) == dict.fromkeys(old, "retired") | dict.fromkeys(new, "needed")
        # Back: what is needed again is filled from the log, before it gets traffic.
        done("rollback", "late", "--repo", repo)
        assert project.store.aliases.get("late", "champion") == "000001"
        assert project.predict("late", [{"carrier": "AA"}]).num_rows == 1
        done("housekeeping", "--repo", repo)
        assert {lives(repo)[name] for name in old} == {"needed"}
        assert done("parity", "--repo", repo)["ok"]
        assert done("replay", "--repo", repo)["ok"]


@pytest.mark.parametrize("step", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_a_retirement_that_was_stopped_leaves_no_marker_beside_missing_rows(
    repo: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The store may give a marker after the rows: a view with it would not be filled again."""
    with Project(repo) as project:
        old = project.needed.plan.views[0].hash
        done("housekeeping", "--repo", repo)
        edit(repo, FLEET, f'{FLEET}, Field(name="more", dtype=Float64)')
        add_column(repo)
        done("apply", "--repo", repo)
        done("train", "--repo", repo)
        done("housekeeping", "--repo", repo)
        pass_hours(repo, 11)
        real, steps = RedisWriter.remove, count(1)

        def remove_one(store: RedisWriter, names: Sequence[bytes], *marker: LastArgument) -> int:
            own = sorted((name for name in names if old.encode() in name), key=lambda name: b":applied" in name)
            if own and next(steps) == step:
                real(store, own[:1])
                raise redis.ConnectionError
            return real(store, names, *marker)

        with monkeypatch.context() as patch:
            patch.setattr(RedisWriter, "remove", remove_one)
            assert run("housekeeping", "--repo", repo).code != 0
        assert next(steps) > step
        done("rollback", "late", "--repo", repo)
        assert project.store.aliases.get("late", "champion") == "000001"
        assert done("parity", "--repo", repo)["ok"]


def test_nothing_goes_while_a_package_cannot_be_read(repo: Path) -> None:
    Documents(ProjectState(repo / ".skewless").database, "view_lifecycles").delete("project")
    done("housekeeping", "--repo", repo)
    edit(repo, MEAN, "")
    done("apply", "--repo", repo)
    package = repo / ".skewless/packages/late/000001/plan.json"
    package.write_bytes(package.read_bytes() + b"!")
    done("housekeeping", "--repo", repo)
    pass_hours(repo, 100)
    assert done("housekeeping", "--repo", repo)["retired"] == 0
    assert "unneeded" in lives(repo).values()
    package.write_bytes(package.read_bytes()[:-1])
    assert done("housekeeping", "--repo", repo)["retired"] == 0
    assert set(lives(repo).values()) == {"needed"}


def test_a_damaged_document_is_begun_anew(tmp_path: Path) -> None:
    state = ProjectState(tmp_path)
    Documents(state.database, "view_lifecycles").put("project", {"views": [{"name": 1}]})
    assert read_lifecycles(state) == []
    assert ViewLifecycle(name="v", hash="h", source=None, stage="needed", since_us=1).stage == "needed"


def pass_hours(repo: Path, hours: int) -> None:
    clock = OffsetClock(repo / "clock")
    clock.set(clock.now_us() + hours * HOUR)


def add_column(repo: Path) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415

    place = repo / "data/facts.parquet"
    table = pq.read_table(place)
    pq.write_table(table.append_column("more", table["fleet"]), place)
