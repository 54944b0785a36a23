"""After an erasure, a project has what it would have without the entity's rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import RequestError, SourceError
from skewless.contract.keys import KeyCodec
from skewless.infra.ingest.streams.backfill import Backfiller
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.log_columns import REJECT, rejected_reasons
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.readers import release_reader
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.infra.reads.engines.task import TaskResult
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.infra.reads.online.redis_store import RedisWriter
from skewless.project import Project
from skewless.validation.parity import Parity
from tests.integration.erasure.conftest import MakeRepo
from tests.servers.prediction import ROOT
from tests.worlds.command_line import done, run
from tests.worlds.edits import edit
from tests.worlds.erasures import (
    ERASED,
    NOW,
    SHOPS,
    delete_in_sources,
    fill,
    last_visits,
    name_users,
    values,
    write_last_visits,
    write_repo,
)

ENTITY = {"user": ERASED}
READER = """\
import sys
import pyarrow.parquet as pq
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.partition_log import PartitionLog
from skewless.project import Project

state = Project(sys.argv[1]).state
files = [file for name in Catalog(state.database).partitions() for file in PartitionLog(state, name).files()]
print(len(files), flush=True)
sys.stdin.readline()
print(sum(pq.read_table(file).num_rows for file in files), flush=True)
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its first values, closed; only copied."""
    repo = write_repo(tmp_path_factory.mktemp("filled") / "p", "p")
    with Project(repo) as project:
        fill(project)
        release_reader(project.state.database)  # a copy would have the lease of this process
        project.state.database.close()
    PrivateServer(repo / ".skewless").stop()
    return repo


@pytest.fixture
def filled_repo(filled: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the project, with a private server of its own."""
    repo = Path(shutil.copytree(filled, tmp_path / "p"))
    edit(repo, str(filled), str(repo), file="skewless.yaml")
    yield repo
    PrivateServer(repo / ".skewless").stop()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_all_others_are_as_if_the_entity_had_never_been_there(make_repo: MakeRepo, seed: int) -> None:
    is_short = seed == 1  # what was there before, and what comes after all; the values after the erasure are complete
    repo, other = make_repo("with", seed=seed), make_repo("without", seed=seed)
    delete_in_sources(other)
    rows = pq.read_table(repo / "data/visits.parquet")["user"].to_pylist().count(ERASED)
    with Project(repo) as project, Project(other) as twin:
        fill(project)
        fill(twin)
        before = values(project, is_short=is_short)
        delete_in_sources(repo)
        receipt = project.erase(ENTITY)
        assert (receipt.rows, receipt.events, receipt.built) == (2 * rows, rows, 2)
        assert receipt.online >= 2
        after = values(project)
        assert after == values(twin)
        assert any(after[name] != value for name, value in before.items())
        for shop in SHOPS:
            (row,) = (view.sides["online"] for view in project.get("shops", {"shop": shop}).views)
            assert row.features["shop_now_sum"] == pytest.approx(_sum_of_six_hours(repo, shop), abs=1e-9)
        assert {row.status for view in project.get("users", ENTITY).views for row in view.sides.values()} == {
            "NOT_FOUND"
        }
        assert project.parity(sample=100).ok
        # New runs do not bring it back.
        assert sum(each.accepted for each in project.materialize()) == 0
        assert sum(each.accepted for each in project.import_events()) == 0
        assert values(project, is_short=is_short).items() <= after.items()
        again = project.erase(ENTITY)
        assert (again.rows, again.events, again.predictions, again.outcomes) == (0, 0, 0, 0)


@pytest.mark.parametrize("is_interrupted", [pytest.param(False, marks=pytest.mark.soak), True])
def test_former_states_lack_the_entity_and_nobody_else(
    make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch, *, is_interrupted: bool
) -> None:
    """Servers may read them for a minute, so that a shop without a state would have no visits."""
    repo = make_repo("former")
    with Project(repo) as project:
        fill(project)
        delete_in_sources(repo)
        plan, asked = project.applied.plan, {"user": [ERASED, "ann"], "shop": SHOPS[:2]}
        views = sorted(plan.windows, key=lambda view: view.name, reverse=True)
        names = [KeyCodec(plan.project, view, 1).encode_columns(asked) for view in views]
        keys = [key for each in names for key in each if key is not None]
        with closing(RedisWriter(project.redis_url)) as store:
            before = store.get(keys)
            assert None not in before
            if is_interrupted:
                with monkeypatch.context() as patch:
                    patch.setattr(Backfiller, "build", interrupt)
                    with pytest.raises(KeyboardInterrupt):
                        project.erase(ENTITY)
            project.erase(ENTITY)
            assert store.get(keys) == [None, *before[1:]]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_dry_run_counts_and_changes_nothing(filled_repo: Path) -> None:
    repo = filled_repo
    with Project(repo) as project:
        delete_in_sources(repo)
        before = values(project, is_short=True)
        receipt = project.erase(ENTITY, dry_run=True)
        assert receipt.dry_run
        assert receipt.rows > 0 < receipt.events
        assert values(project, is_short=True) == before
        erased = project.erase(ENTITY)
        counts = ("rows", "events", "predictions", "outcomes", "lists", "online", "built")
        assert {name: getattr(receipt, name) for name in counts} == {name: getattr(erased, name) for name in counts}
        assert receipt.online > 0 < receipt.built
        again = project.erase(ENTITY, dry_run=True)
        assert (again.rows, again.events, again.online, again.built) == (0, 0, 0, 0)
        said = run("erase", "--entity", f"user={ERASED}", "--repo", repo, "--yes")
        assert said.code == 0
        assert "not covered: backups" in said.stdout


def test_it_is_refused_while_a_source_has_the_entity(filled_repo: Path) -> None:
    repo = filled_repo
    with Project(repo) as project:
        with pytest.raises(SourceError, match=r"still has \d+ rows of the entity"):
            project.erase(ENTITY)
        for keys in ({"nobody": "x"}, {}):
            with pytest.raises(RequestError):
                project.erase(keys)
        for words in (["user"], ["user=a", "--entity", "user=b"]):
            said = run("erase", "--entity", *words, "--yes", "--repo", repo, "--json")
            assert (said.code, said.body["error"]["thing"]) == (6, "option --entity")
        said = run("erase", "--entity", f"user={ERASED}", "--repo", repo, "--json")
        assert (said.code, said.body["error"]["problem"]) == (6, "needs a confirmation")


def test_more_keys_erase_fewer_rows(filled_repo: Path) -> None:
    repo = filled_repo
    with Project(repo) as project:
        for name in ("visits", "pairs"):
            path = repo / f"data/{name}.parquet"
            rows = pq.read_table(path).to_pandas()
            kept = rows[(rows.user != "ann") | (rows.shop != SHOPS[2])]
            pq.write_table(pq.read_table(path).take(kept.index.to_list()), path)
        receipt = project.erase({"user": "ann", "shop": SHOPS[2]})
        assert 0 < receipt.rows == receipt.events < 80
        assert receipt.online >= 1
        assert project.parity(sample=100).ok
        (log,) = [name for name in Catalog(project.state.database).ends("batch") if "pairs" in name]
        files = PartitionLog(project.state, log).files()
        assert rejected_reasons(files) == {"erased": receipt.rows}
        row = project.get("pairs", {"user": "ann", "shop": SHOPS[2]}).views[0].sides["online"]
        assert row.status == "NOT_FOUND"
        assert project.get("pairs", {"user": "ann", "shop": SHOPS[0]}).views[0].sides["online"].position is not None
        assert any(name == REJECT for name in pq.read_schema(files[0]).names)


def test_no_file_has_the_text_of_the_entity(filled_repo: Path) -> None:
    """With a private server, whose file is written again; in processes of their own, which end."""
    repo = filled_repo
    with Project(repo) as project:
        project.lists.set("blocked", [ERASED, "bob"], reason="a list that no policy reads yet")
        project.lists.set("blocked", [ERASED], reason="bob is good")
    with Project(repo) as project:  # an interrupted command has left a result
        stored = project.state.storage.put("work/read_view-1/1.arrow", ERASED.encode())
        result = TaskResult(objects=(stored,), rows=1, digest="d").as_dict() | {"at_us": 0}
        Documents(project.state.database, "task_result").create("read_view-1/0-1", result)
    assert _files_with(repo / ".skewless", ERASED)
    delete_in_sources(repo)
    receipt = _command(repo, "erase", "--entity", f"user={ERASED}", "--yes")
    assert (receipt["objects"], receipt["waiting"], receipt["lists"]) == (3, 0, 2)
    assert _files_with(repo / ".skewless", ERASED) == []
    with Project(repo) as project:
        assert Documents(project.state.database, "task_result").names() == []
        ((_, record),) = Records(project.state.database, "erasures").read_latest_first("project")
        assert record["rows"] > 0
        assert "salt" not in record
        assert ERASED not in str(record)


def test_a_reader_in_another_process_keeps_its_files(filled_repo: Path) -> None:
    repo = filled_repo
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(repo)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdin is not None
        assert int(reader.stdout.readline()) == 3
        delete_in_sources(repo)
        receipt = done("erase", "--entity", f"user={ERASED}", "--yes", "--repo", repo)
        assert (receipt["objects"], receipt["waiting"]) == (0, 3)
        reader.stdin.write("go\n")
        reader.stdin.flush()
        assert int(reader.stdout.readline()) == 1_200
    assert done("housekeeping", "--repo", repo)["deleted"] == 3
    assert _files_with(repo / ".skewless", ERASED) == []


def _sum_of_six_hours(repo: Path, shop: str) -> float:
    """Return the sum of the amounts of a shop in its file, in plain Python."""
    rows = pq.read_table(repo / "data/visits.parquet").to_pylist()
    six_hours = 6 * 3_600
    own = [row for row in rows if row["shop"] == shop and 0 < NOW / 1e6 - row["at"].timestamp() <= six_hours]
    return float(sum(row["amount"] for row in own))


def _command(repo: Path, *words: str) -> Any:  # noqa: ANN401 - JSON
    program = [sys.executable, "-c", "from skewless.cli import main; main()", *words, "--repo", str(repo), "--json"]
    ended = subprocess.run(program, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, (words, ended.stdout, ended.stderr)
    return json.loads(ended.stdout)


def _files_with(folder: Path, text: str) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in files if text.encode() in path.read_bytes()]


# In `make test`, test_receipts.py continues erasures that were interrupted where the other case is.
@pytest.mark.parametrize("case", ["named", pytest.param("interrupted", marks=pytest.mark.soak)])
def test_rows_of_others_that_name_the_entity_are_as_if_it_had_never_been_there(
    make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    found = []
    for name in (case, "unnamed"):
        repo = make_repo(name)
        name_users(repo, (None, None, "ann") if name == "unnamed" else (ERASED, ERASED, "ann"))
        with Project(repo) as project:
            fill(project)
            if name != "unnamed":
                delete_in_sources(repo)
                write_last_visits(repo, (None, None, "ann"))
                if name == "interrupted":
                    with monkeypatch.context() as patch:
                        patch.setattr(Parity, "restore", interrupt)
                        with pytest.raises(KeyboardInterrupt):
                            project.erase(ENTITY)
                receipt = project.erase(ENTITY)
                assert receipt.online >= 2 or name == "interrupted"
            found.append(last_visits(project))
            assert project.parity(sample=100).ok
            assert ERASED not in str(found)
    assert found[0] == found[1]
    assert [status for status, *_ in found[0].values()] == ["NOT_FOUND", "PRESENT", "PRESENT"]
