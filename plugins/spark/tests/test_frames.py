"""Features of a Spark DataFrame are those of one machine, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import RequestError, SourceError
from skewless.contract.spec import TimeMode
from skewless.infra.reads.engines.port import Executor
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
    from pyspark.sql import DataFrame, SparkSession


@pytest.fixture
def session(engine: Executor) -> Iterator[SparkSession]:  # noqa: ARG001 - has started it
    """A session in a zone of its own, which must not matter."""
    from pyspark.sql import SparkSession  # noqa: PLC0415 - only where it is installed

    session = SparkSession.getActiveSession()
    assert session is not None
    session.conf.set("spark.sql.session.timeZone", "America/New_York")
    yield session
    session.conf.unset("spark.sql.session.timeZone")


def features(frame: DataFrame, repo: Path, **options: Any) -> DataFrame:  # noqa: ANN401 - of several types
    import skewless_spark  # noqa: PLC0415 - only where it is installed

    return skewless_spark.features(frame, project=repo, **{"service": SERVICE, "time": TIME, **options})


@pytest.mark.parametrize("mode", ["knowledge", "event_time"])
def test_a_frame_gets_the_features_of_one_machine(
    session: SparkSession, repo: Path, tmp_path: Path, mode: TimeMode
) -> None:
    file = tmp_path / "rows.parquet"
    own = write_entities(file)
    expected = append_features(own, features_of_file(repo, file, tmp_path / "out", mode))
    frame = session.read.parquet(str(file))
    actual = features(frame, repo, mode=mode, partitions=7).toArrow()
    assert find_differences(actual, expected) == []


def test_a_frame_in_many_partitions_keeps_its_order(session: SparkSession, repo: Path, tmp_path: Path) -> None:
    own = write_entities(tmp_path / "rows.parquet")
    expected = append_features(own, features_of_file(repo, tmp_path / "rows.parquet", tmp_path / "out", "knowledge"))
    frame = session.createDataFrame(own).repartition(5).cache()
    order = frame.toArrow()
    actual = features(frame, repo).toArrow()
    assert find_differences(actual.select(own.column_names), order) == []
    labels = [name for name in expected.column_names if name not in own.column_names]
    rows = [(name, "ascending") for name in ("carrier", "airport", TIME, "miles", "seats")]
    assert find_differences(actual.sort_by(rows).select(labels), expected.sort_by(rows).select(labels)) == []


def test_without_order_no_row_is_lost_or_doubled(session: SparkSession, repo: Path, tmp_path: Path) -> None:
    write_entities(tmp_path / "rows.parquet")
    frame = session.read.parquet(str(tmp_path / "rows.parquet"))
    assert features(frame, repo, ordered=False, service="only_airports").count() == ROWS


def test_a_frame_without_rows_has_the_columns(session: SparkSession, repo: Path, tmp_path: Path) -> None:
    write_entities(tmp_path / "rows.parquet")
    frame = session.read.parquet(str(tmp_path / "rows.parquet")).limit(0)
    result = features(frame, repo)
    assert result.count() == 0
    assert result.columns[-2:] == ["pace__per_seat", "pace__full"]


def test_a_time_without_a_zone_is_rejected(session: SparkSession, repo: Path, tmp_path: Path) -> None:
    own = write_entities(tmp_path / "rows.parquet")
    pq.write_table(own.set_column(2, TIME, own[TIME].cast(pa.timestamp("us"))), tmp_path / "naive.parquet")
    frame = session.read.parquet(str(tmp_path / "naive.parquet"))
    with pytest.raises(SourceError, match="is a time without a zone"):
        features(frame, repo)


def test_unknown_names_are_rejected_before_anything_runs(session: SparkSession, repo: Path, tmp_path: Path) -> None:
    write_entities(tmp_path / "rows.parquet")
    frame = session.read.parquet(str(tmp_path / "rows.parquet"))
    with pytest.raises(RequestError, match="neither a feature service nor a model"):
        features(frame, repo, service="no")
    with pytest.raises(SourceError, match="has no such column"):
        features(frame.drop("airport"), repo)
    with pytest.raises(SourceError, match="reserved name"):
        features(frame.withColumnRenamed("odd", "airports__city"), repo)
