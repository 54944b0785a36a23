"""What `skewless apply` makes of the sources of views, and which of them it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from skewless.contract.errors import DefinitionError
from skewless.infra.definitions.compiler.compile import compile_repo
from tests.worlds.edits import edit
from tests.worlds.payments_data import TEMPLATE


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    shutil.copytree(TEMPLATE, tmp_path / "repo")
    return tmp_path / "repo"


def test_mapped_times_are_those_of_the_file(repo: Path) -> None:
    source = 'path="data/card_days.parquet", timestamp_field="event_time", created_timestamp_column="created"'
    edit(repo, source, source + ', field_mapping={"ts": "event_time", "made": "created"}')
    plan_source = compile_repo(repo).plan.view("card_days").source
    assert (plan_source.event_column, plan_source.created_column) == ("ts", "made")


@pytest.mark.parametrize(
    ("path", "more", "message"),
    [
        ("s3://bucket/shop.parquet", "", "is in an object store, which cannot be read .got 's3://bucket"),
        ("shop", ', file_format=__import__("feast.data_format").data_format.DeltaFormat()', "is a Delta table"),
    ],
)
def test_what_is_no_local_file_is_refused_with_the_reason(repo: Path, path: str, more: str, message: str) -> None:
    source = '"data/shop_risk.parquet", timestamp_field="event_time"'
    edit(repo, source, f'"{path}", timestamp_field="event_time"{more}')
    with pytest.raises(DefinitionError, match=message):
        compile_repo(repo)
