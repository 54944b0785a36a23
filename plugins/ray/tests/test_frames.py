"""Features of a Ray Dataset are those of one machine, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from skewless.contract.errors import RequestError, SourceError
from skewless.contract.spec import TimeMode
from tests.worlds.frames import (
    ROWS,
    SERVICE,
    TIME,
    append_features,
    features_of_file,
    find_differences,
    write_entities,
)

if TYPE_CHECKING:
    from ray.data import Dataset

pytestmark = pytest.mark.usefixtures("engine")


def features(dataset: Dataset, repo: Path, **options: Any) -> Dataset:  # noqa: ANN401 - of several types
    import skewless_ray  # noqa: PLC0415 - only where it is installed

    return skewless_ray.features(dataset, project=repo, **{"service": SERVICE, "time": TIME, **options})


def make_dataset(rows: pa.Table, blocks: int = 3) -> Dataset:
    import ray  # noqa: PLC0415 - only where it is installed

    size = -(-rows.num_rows // blocks)
    return ray.data.from_arrow([rows.slice(first, size) for first in range(0, rows.num_rows, size)])


def to_table(dataset: Dataset) -> pa.Table:
    return pa.concat_tables(list(dataset.iter_batches(batch_format="pyarrow", batch_size=None)))


@pytest.mark.parametrize("mode", ["knowledge", "event_time"])
def test_a_dataset_gets_the_features_of_one_machine(repo: Path, tmp_path: Path, mode: TimeMode) -> None:
    file = tmp_path / "rows.parquet"
    own = write_entities(file)
    expected = append_features(own, features_of_file(repo, file, tmp_path / "out", mode))
    actual = to_table(features(make_dataset(own), repo, mode=mode, partitions=7))
    assert find_differences(actual, expected) == []


def test_without_order_no_row_is_lost_or_doubled(repo: Path, tmp_path: Path) -> None:
    own = write_entities(tmp_path / "rows.parquet")
    assert features(make_dataset(own, 1), repo, ordered=False, service="only_airports").count() == ROWS


def test_a_time_without_a_zone_is_rejected(repo: Path, tmp_path: Path) -> None:
    own = write_entities(tmp_path / "rows.parquet")
    naive = own.set_column(2, TIME, own[TIME].cast(pa.timestamp("us")))
    with pytest.raises(SourceError, match="is a time without a zone"):
        features(make_dataset(naive), repo)


def test_unknown_names_are_rejected_before_anything_runs(repo: Path, tmp_path: Path) -> None:
    dataset = make_dataset(write_entities(tmp_path / "rows.parquet"))
    with pytest.raises(RequestError, match="neither a feature service nor a model"):
        features(dataset, repo, service="no")
    with pytest.raises(SourceError, match="has no such column"):
        features(dataset.drop_columns(["airport"]), repo)
    with pytest.raises(SourceError, match="reserved name"):
        features(dataset.rename_columns({"odd": "airports__city"}), repo)
