"""Features for the rows of a Spark DataFrame, which stays one; needs the extra ``spark``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as sql
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import IntegerType, StructType

from skewless.operations.data.frames import prepare_join

if TYPE_CHECKING:
    from skewless.contract.spec import TimeMode
    from skewless.workspace import Workspace

_ROW, _PARTITION = "__row", "__partition"


def features(
    frame: DataFrame,
    *,
    service: str,
    project: Workspace | str | Path = ".",
    time: str = "event_timestamp",
    mode: TimeMode = "knowledge",
    partitions: int | None = None,
    ordered: bool = True,
) -> DataFrame:
    """Return a frame with the features of a service behind its columns: what ``skewless dataset`` writes for a file.

    Each row stays one row, duplicates and rows with null keys too; the columns of the frame are not changed. The frame
    is lazy, and the logs count as they are now, whenever Spark computes it.

    Args:
        frame: has the service's keys, its request fields and the time; names that begin with ``__`` are reserved.
        service: name of a feature service, or of a model.
        project: the project, or its folder; the executors need its database and storage.
        time: column of the prediction time, a TIMESTAMP. A TIMESTAMP_NTZ has no zone, and is rejected (SEMANTICS 1.1).
        mode: ``knowledge``: only rows and events that serving could have known by then count; or ``event_time``.
        partitions: tasks, each with a range of the entities' buckets; None: two per core.
        ordered: whether the result has the order of the frame, which takes a sort.

    Raises:
        RequestError: there is no such service.
        SourceError: a column is missing, or of another type; or a view has never been filled.
    """
    join = prepare_join(project, service, time_column=time, mode=mode)
    join.check(to_arrow_schema(frame.schema, timezone="UTC"))
    count = partitions or 2 * frame.sparkSession.sparkContext.defaultParallelism

    @sql.arrow_udf(IntegerType())
    def find_partition(*keys):  # type: ignore[no-untyped-def]  # noqa: ANN002, ANN202 - Spark would read the types
        return join.find_partitions(keys, count)

    rows = frame.withColumn(_ROW, sql.monotonically_increasing_id())
    rows = rows.withColumn(_PARTITION, find_partition(*(frame[f"`{name}`"] for name in join.keys)))
    rows = rows.repartitionById(count, sql.col(_PARTITION))
    schema = StructType([*rows.schema.fields, *from_arrow_schema(join.features).fields])
    joined = rows.mapInArrow(join.add, schema)
    if ordered:
        # A sort reads its input twice. So that the features are not computed twice, they are stored in a shuffle first.
        joined = joined.repartitionById(count, sql.col(_PARTITION)).drop(_PARTITION).orderBy(_ROW)
    return joined.drop(_PARTITION, _ROW)
