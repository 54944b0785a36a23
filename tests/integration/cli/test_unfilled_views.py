"""Training before the views are filled: refused, because every feature of such a view would be null."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import SourceError
from skewless.project import Project
from tests.worlds.command_line import done, run
from tests.worlds.windowed import copied_repo, write_repo

FACTS = "view 'facts': has never been materialized. Fix: run `skewless materialize`"
LANDINGS = (
    "windowed view 'carrier_now': has no accepted event (got \"event source 'landings'\"). "
    "Fix: run `skewless import` or `skewless stream`"
)


@pytest.fixture(scope="module")
def unfilled_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that is applied; only ever copied."""
    repo = write_repo(tmp_path_factory.mktemp("repo") / "p")
    done("apply", "--repo", repo)
    return repo


@pytest.fixture
def repo(unfilled_repo: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy, with the clock of that project."""
    with copied_repo(unfilled_repo, tmp_path / "p") as place:
        yield place


def check_refused(repo: Path, message: str, *, train: bool = True) -> None:
    """Check that every command and method that builds training rows refuses, and writes nothing."""
    out = repo.parent / "out"
    rows = ("dataset", "--repo", repo, "--entities", repo / "data/labels.parquet", "--service", "air")
    dataset = (*rows, "--out", out, "--time", "asked_at")
    for words in ([("train", "--repo", repo)] if train else []) + [dataset, (*dataset, "--dry-run")]:
        said = run(*words)
        assert said.code == 4, said
        assert message in " ".join(said.stderr.split()), said
    with Project(repo) as project, pytest.raises(SourceError) as refusal:
        project.training_set("late")
    assert message in str(refusal.value)
    assert not out.exists()
    assert not (repo / ".skewless/packages/late/000001").exists()


def test_a_view_that_was_never_materialized_is_named(repo: Path) -> None:
    done("import", "--repo", repo)
    check_refused(repo, FACTS, train=False)
    assert done("train", "--repo", repo), "training fills the view first"
    with Project(repo) as project:
        assert project.training_set("late").status["facts"]["PRESENT"] > 0


def test_a_windowed_view_whose_source_has_no_log_is_named(repo: Path) -> None:
    done("materialize", "--repo", repo)
    check_refused(repo, LANDINGS)
    imported = done("import", "--repo", repo)
    states = [item["states"] for item in imported["sources"]]
    assert states == ["none"], "a refused training must not use up the history"


def test_a_run_that_could_not_read_the_source_fills_no_view(repo: Path) -> None:
    done("import", "--repo", repo)
    path = repo / "data/facts.parquet"
    path.rename(repo / "facts.parquet")
    assert run("materialize", "--repo", repo).code != 0
    check_refused(repo, FACTS)


def test_a_source_without_rows_is_no_reason_to_refuse(repo: Path) -> None:
    path = repo / "data/facts.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    done("import", "--repo", repo)
    done("materialize", "--repo", repo)
    with Project(repo) as project:
        assert set(project.training_set("late").status["facts"]) == {"NOT_FOUND"}
