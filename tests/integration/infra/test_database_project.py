"""The sample project with its tables in a DuckDB file: planned, applied, validated and labelled as from Parquet."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from skewless.contract.clock import OffsetClock
from skewless.contract.errors import SourceError
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.labels import read_labels
from skewless.project import Project
from tests.worlds.payments_data import TEMPLATE, write_sample

NOW = 1_750_000_000_000_000
TABLES = ("card_days", "shop_risk", "payments")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    repo = tmp_path / "repo"
    OffsetClock.create(repo / "clock")
    shutil.copytree(TEMPLATE, repo, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    write_sample(repo / "data", NOW)
    with duckdb.connect(str(repo / "data/wh.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table in TABLES:
            connection.execute(f"CREATE TABLE {table} AS FROM read_parquet('{repo}/data/{table}.parquet')")
    return repo


def to_database(repo: Path) -> None:
    """Let the definitions name the tables of the database."""
    definitions, models = repo / "definitions.py", repo / "models.py"
    text = definitions.read_text()
    for table in TABLES[:2]:
        text = text.replace(
            f'FileSource(path="data/{table}.parquet"', f'DuckDBSource(path="data/wh.duckdb", table="{table}"'
        )
    text = text.replace("FileSource, ", "")
    definitions.write_text(f"{text}\n".replace("\nimport transforms", "\n" + _IMPORT + "import transforms"))
    models.write_text(models.read_text().replace("data/payments.parquet", "duckdb:data/wh.duckdb#payments"))


_IMPORT = "from skewless import DuckDBSource\n"


def test_a_project_moves_into_a_database(repo: Path) -> None:
    with Project(repo, clock=f"file:{repo}/clock") as project:
        before = project.plan()
    to_database(repo)
    with Project(repo, clock=f"file:{repo}/clock") as project:
        after = project.plan()
        assert before.hash != after.hash
        assert {change.name for change in after.changes} >= {"card_days", "shop_risk"}
        project.apply()
        assert project.applied.plan.view("card_days").source.path == "duckdb:data/wh.duckdb#card_days"
        assert [report.success for report in project.validate().reports] == [True] * 3


def test_labels_of_a_database_are_those_of_the_file(repo: Path) -> None:
    with Project(repo) as project, connect(repo / "spill") as connection:
        project.apply()
        spec = project.applied.models[0]
        files = read_labels(connection, repo, project.applied.plan.select_service(spec.service), spec)
    to_database(repo)
    with Project(repo) as project, connect(repo / "spill") as connection:
        project.apply()
        spec = project.applied.models[0]
        tables = read_labels(connection, repo, project.applied.plan.select_service(spec.service), spec)
    assert tables.equals(files)


def test_a_plan_names_the_table_that_is_missing(repo: Path) -> None:
    to_database(repo)
    with duckdb.connect(str(repo / "data/wh.duckdb")) as connection:
        connection.execute("DROP TABLE shop_risk")
    with (
        Project(repo) as project,
        pytest.raises(SourceError, match=r"source of view 'shop_risk': cannot be read: .*create the table"),
    ):
        project.plan()
