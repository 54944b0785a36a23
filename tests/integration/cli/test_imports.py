"""SEMANTICS 4.4: files of history are known by their rows, and an event id counts once."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from skewless.infra.ingest.streams import importing
from skewless.infra.ingest.streams.import_records import ImportRecords
from skewless.infra.ingest.streams.importing import Importer
from skewless.infra.log.catalog import Catalog
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.project import Project
from tests.integration.cli.import_repo import give_ids, imported, landings, logged, write_folder_repo
from tests.worlds.command_line import Said, done, run
from tests.worlds.edits import edit
from tests.worlds.windowed import COLUMNS, HOUR, MINUTE, NOW, STAMP


@pytest.fixture(scope="module")
def unnamed_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a file of events, which is not imported; only ever copied."""
    return write_folder_repo(tmp_path_factory.mktemp("imports") / "p")


@pytest.fixture(scope="module")
def named_repo(unnamed_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, where each event has an id."""
    return give_ids(Path(shutil.copytree(unnamed_repo, tmp_path_factory.mktemp("named") / "p")))


@pytest.fixture
def repo(unnamed_repo: Path, tmp_path: Path) -> Iterator[Path]:
    yield from copied(unnamed_repo, tmp_path)


@pytest.fixture
def named(named_repo: Path, tmp_path: Path) -> Iterator[Path]:
    yield from copied(named_repo, tmp_path)


def copied(repo: Path, tmp_path: Path) -> Iterator[Path]:
    """Yield a copy of a project; its clock is that of the project."""
    place = Path(shutil.copytree(repo, tmp_path / "p"))
    yield place
    PrivateServer(place / ".skewless").stop()


def refused(repo: Path) -> Said:
    foreseen, said = (run("import", *more, "--repo", repo, "--json") for more in (("--dry-run",), ()))
    assert (foreseen.code, foreseen.body) == (said.code, said.body)
    return said


def test_a_file_is_its_rows_wherever_it_lies_and_however_it_is_written(repo: Path, tmp_path: Path) -> None:
    path = repo / "data/landings/a.parquet"
    assert imported(repo)["accepted"] == 600
    os.utime(path, (1, 1))
    shutil.copy(path, path.with_name("copy.parquet"))
    shutil.copy(path, path.with_name("0.parquet"))
    done_ = imported(repo)
    assert (done_["accepted"], done_["files"], done_["present"]) == (0, 0, 1_800)
    path.with_name("0.parquet").unlink()
    path.with_name("copy.parquet").unlink()
    path.rename(path.with_name("b.parquet"))
    path = path.with_name("b.parquet")
    pq.write_table(pq.read_table(path), path, row_group_size=7, compression="none", use_dictionary=False, version="1.0")
    assert imported(repo)["accepted"] == 0
    other = Path(shutil.copytree(repo, tmp_path / "clone"))
    for file in other.rglob("*.parquet"):
        os.utime(file)
    assert imported(other)["accepted"] == 0
    pa.csv.write_csv(pq.read_table(path), path.with_suffix(".csv"))
    path.unlink()
    done_ = imported(repo)
    assert (done_["accepted"], done_["present"], done_["rejected"]) == (0, 600, 0)
    assert len(logged(repo)) == len(logged(other)) == 600


# In make test, with ids: rows are known in the same way without.
@pytest.mark.parametrize("with_ids", [pytest.param(False, marks=pytest.mark.soak), True])
def test_a_file_that_grew_is_read_on_and_a_shorter_one_is_known(repo: Path, *, with_ids: bool) -> None:
    repo = give_ids(repo) if with_ids else repo
    path = repo / "data/landings/a.parquet"
    rows = pq.read_table(path)
    for size, accepted in ((100, 100), (250, 150), (99, 0), (600, 350), (250, 0)):
        pq.write_table(rows.slice(0, size), path)
        done_ = imported(repo)
        assert (done_["accepted"], done_["present"]) == (accepted, size - accepted)
    assert logged(repo) == rows["arr_delay"].to_pylist()


def test_a_column_that_is_declared_later_makes_no_file_another(repo: Path) -> None:
    path = repo / "data/landings/a.parquet"
    rows = pq.read_table(path)
    rows = rows.append_column("gate", pa.array(range(600), pa.int64()))
    pq.write_table(rows.slice(0, 400), path)
    assert imported(repo)["accepted"] == 400
    edit(repo, COLUMNS, COLUMNS + ", gate int64")
    done("apply", "--repo", repo)
    os.utime(path)
    assert imported(repo)["accepted"] == 0
    pq.write_table(rows, path)
    done_ = imported(repo)
    assert (done_["accepted"], done_["present"], done_["files"]) == (200, 400, 1)
    assert logged(repo) == rows["arr_delay"].to_pylist()


def test_a_corrected_file_is_refused_unless_its_events_have_ids(repo: Path) -> None:
    path = repo / "data/landings/a.parquet"
    imported(repo)
    rows = pq.read_table(path)
    pq.write_table(pa.concat_tables([rows.slice(5), landings(2)]), path)
    said = refused(repo)
    assert (said.code, said.body["error"]["value"]) == (4, str(path))
    assert len(logged(repo)) == 600
    # As the error says: away with it, new events in a new file.
    path.unlink()
    pq.write_table(landings(2), path.with_name("b.parquet"))
    assert imported(repo)["accepted"] == 2
    assert len(logged(repo)) == 602


def test_a_corrected_file_with_ids_brings_what_is_new(named: Path) -> None:
    path = named / "data/landings/a.parquet"
    imported(named)
    rows = pq.read_table(path)
    more = landings(2).append_column("landing", pa.array(["h600", "h601"]))
    pq.write_table(pa.concat_tables([more, rows.slice(5)]), path)
    done_ = imported(named)
    assert (done_["accepted"], done_["duplicates"]) == (2, 595)
    assert imported(named)["present"] == 597
    assert Counter(logged(named, "landing")) == Counter(f"h{i}" for i in range(602))
    anonymous = pa.concat_tables([more.slice(0, 1), rows.slice(7, 1)]).set_column(
        more.column_names.index("landing"), "landing", pa.array([None, "h7"])
    )
    pq.write_table(anonymous, path)
    assert refused(named).body["error"]["problem"].endswith("with events that have no id")


def test_an_id_that_is_declared_later_knows_the_events_of_before(repo: Path) -> None:
    """The remedy that the refusal of a changed file names."""
    path = repo / "data/landings/a.parquet"
    edit(repo, COLUMNS, COLUMNS + ", landing string")
    rows = pq.read_table(path)
    rows = rows.append_column("landing", pa.array([f"h{i}" for i in range(600)]))
    pq.write_table(rows, path)
    done("apply", "--repo", repo)
    imported(repo)
    pq.write_table(rows.slice(1), path)
    assert refused(repo).code == 4
    edit(repo, COLUMNS, f'"skewless.event_id": "landing", {COLUMNS}')
    done("apply", "--repo", repo)
    assert imported(repo)["duplicates"] == 599


def test_ids_count_once_within_a_file_between_files_and_with_the_stream(named: Path) -> None:
    folder = named / "data/landings"
    rows = pq.read_table(folder / "a.parquet")
    doubled = pa.concat_tables(
        [rows.slice(590), rows.slice(590), landings(1).append_column("landing", pa.array(["z"]))]
    )
    pq.write_table(doubled, folder / "b.parquet")
    done_ = imported(named)
    assert (done_["accepted"], done_["duplicates"]) == (601, 20)
    sent = [
        {"landing": name, "carrier": "AA", "arr_delay": 1.0, "landed_at": NOW - MINUTE}
        for name in ("h3", "z", "s1", "s1", "s2")
    ]
    with Project(named) as project:
        sender = project.streams.sender(project.streams.sources()[0])
        sender.send([json.dumps(body).encode() for body in sent])
        sender.close()
        (counts,) = done("stream", "--until-idle", "--repo", named)["sources"]
    assert (counts["accepted"], counts["duplicates"]) == (2, 3)
    late = landings(3).append_column("landing", pa.array(["s2", "n1", "h0"]))
    pq.write_table(late, folder / "c.parquet")
    done_ = imported(named)
    assert (done_["accepted"], done_["duplicates"], done_["states"]) == (1, 2, "applied")
    assert max(Counter(logged(named, "landing")).values()) == 1


def test_an_event_in_quarantine_claims_no_id(named: Path) -> None:
    path = named / "data/landings/a.parquet"
    rows = pq.read_table(path).slice(0, 4).to_pylist()
    rows[0] |= {"arr_delay": 1e300, "landing": "x"}
    rows[1] |= {"landing": "x"}
    rows[2] |= {"landing": "x"}
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    done_ = imported(named)
    assert (done_["accepted"], done_["rejected"], done_["duplicates"]) == (2, 1, 1)


# In make test, with ids: its steps are those without, and rows that are left out.
@pytest.mark.parametrize("with_ids", [pytest.param(False, marks=pytest.mark.soak), True])
def test_an_import_that_is_killed_anywhere_goes_on(
    repo: Path, monkeypatch: pytest.MonkeyPatch, *, with_ids: bool
) -> None:
    """Around each durable step: the record, the rows, the name of the file."""
    repo = give_ids(repo) if with_ids else repo
    path = repo / "data/landings/a.parquet"
    rows = pq.read_table(path)
    if with_ids:  # ends with rows that are left out
        rows = pa.concat_tables([rows, rows.slice(0, 120)])
    monkeypatch.setattr(importing, "BATCH_ROWS", 100)
    chance = random.Random(3)
    for size in (250, 430, rows.num_rows):
        pq.write_table(rows.slice(0, size), path)
        for _ in range(3):
            killed_at(repo, chance.randrange(9), monkeypatch)
        done("import", "--repo", repo)
    assert logged(repo) == pq.read_table(path)["arr_delay"].to_pylist()[:600]
    done_ = imported(repo)
    assert (done_["accepted"], done_["duplicates"], done_["present"]) == (0, 0, rows.num_rows)


def killed_at(repo: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import until a durable step, and end before or after it."""
    count = 0

    def dying(real: Any) -> Any:  # noqa: ANN401 - of any function
        def call(*args: object, **more: object) -> object:
            nonlocal count
            if count == step:
                raise KeyboardInterrupt
            count += 1
            result = real(*args, **more)
            if count == step:
                raise KeyboardInterrupt
            count += 1
            return result

        return call

    with monkeypatch.context() as patch, Project(repo) as project:
        patch.setattr(ImportRecords, "save", dying(ImportRecords.save))
        patch.setattr(Catalog, "append", dying(Catalog.append))
        (source,) = project.streams.sources()
        try:
            Importer(streams=project.streams, source=source, repo=project.repo).run()
        except KeyboardInterrupt:
            return


def test_import_appends_the_order_of_the_file_whatever_its_row_groups(repo: Path) -> None:
    """Events with equal times keep the order of their file: it is that of their positions."""
    path = repo / "data/landings/a.parquet"
    n = 5_000
    rows = landings(n)
    same = rows.set_column(2, "landed_at", pa.array([NOW - HOUR] * n, pa.int64()).cast(STAMP))
    pq.write_table(same, path, row_group_size=11)
    (repo / "skewless.yaml").write_text(f"clock: file:{repo}/clock\nthreads: 4\n")
    assert imported(repo)["accepted"] == n
    assert logged(repo) == rows["arr_delay"].to_pylist()
    assert pc.all(pc.equal(same["landed_at"], same["landed_at"][0])).as_py()
