"""An erasure gives its receipt, whatever the run at its end does."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import StoreError
from skewless.infra.ingest.materialization.latest_rows import LatestRows
from skewless.infra.ingest.materialization.materialize import Materializer
from skewless.infra.platform.storage.documents import Records
from skewless.operations.data.erasure.entity import Entity
from skewless.project import Project
from skewless.validation.parity import Parity
from tests.integration.erasure.conftest import MakeRepo
from tests.worlds.command_line import run
from tests.worlds.erasures import ERASED, delete_in_sources, fill, last_visits, name_users

ENTITY = {"user": ERASED}


def interrupt_erasure(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("failure", ["source", "gate", "store"])
def test_a_failure_of_the_last_run_is_told_in_the_receipt(
    make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    repo = make_repo(failure)
    name_users(repo, (ERASED, ERASED, "ann"))
    with Project(repo) as project:
        fill(project)
        delete_in_sources(repo)
        with monkeypatch.context() as patch:
            patch.setattr(Parity, "restore", interrupt_erasure)
            with pytest.raises(KeyboardInterrupt):
                project.erase(ENTITY)
    fail(failure, repo, monkeypatch)
    digests = []
    for n in range(2):  # again: of a failed source and gate, the rows were written from the log
        said = run("erase", "--entity", f"user={ERASED}", "--yes", "--repo", repo, "--json")
        with Project(repo) as project:
            (_, record), *others = Records(project.state.database, "erasures").read_latest_first("project")
            assert last_visits(project)["south", "online"][0] == ("UNAVAILABLE" if failure == "store" else "PRESENT")
        if failure == "store" or not n:
            assert (said.code, said.body["error"]["kind"]) == ({"source": 4, "gate": 5, "store": 7}[failure], failure)
        else:
            assert (said.code, "error" in said.body) == (0, False)
        assert len(others) == n
        assert record["digest"] == said.body["digest"]
        digests.append(Entity(keys=ENTITY, integers=frozenset()).digest(said.body["salt"]))
        assert digests[-1] == record["digest"]
    assert digests[0] != digests[1]


def fail(failure: str, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run of the rows of shops fail, whose source is read for no check."""
    path = repo / "data/last_visits.parquet"
    rows = pq.read_table(path)
    if failure == "source":
        path.write_bytes(b"no Parquet")
    elif failure == "gate":
        no_key = rows.slice(0, 1).set_column(0, "shop", pa.array([None], pa.string()))
        pq.write_table(pa.concat_tables([rows, no_key]), path)
        (repo / "skewless.yaml").write_text(f"{(repo / 'skewless.yaml').read_text()}strict: true\n")
    else:

        def refuse(*_: object) -> None:
            raise StoreError("Redis", "is unavailable", fix="start it")

        monkeypatch.setattr(LatestRows, "write", refuse)
        monkeypatch.setattr(Materializer, "write", refuse)
