"""Features for the rows of a Ray Dataset, which stays one; needs the extra ``ray``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import ray
from ray.data.expressions import monotonically_increasing_id

from skewless.operations.data.frames import prepare_join

if TYPE_CHECKING:
    from ray.data import Dataset

    from skewless.contract.spec import TimeMode
    from skewless.workspace import Workspace

_ROW, _PARTITION = "__row", "__partition"


def features(
    dataset: Dataset,
    *,
    service: str,
    project: Workspace | str | Path = ".",
    time: str = "event_timestamp",
    mode: TimeMode = "knowledge",
    partitions: int | None = None,
    ordered: bool = True,
) -> Dataset:
    """Return a dataset with the features of a service behind its columns: what ``skewless dataset`` writes for a file.

    Each row stays one row, duplicates and rows with null keys too; the columns of the dataset are not changed. The
    result is lazy, and the logs count as they are now, whenever Ray computes it.

    Args:
        dataset: has the service's keys, its request fields and the time; names that begin with ``__`` are reserved.
        service: name of a feature service, or of a model.
        project: the project, or its folder; the workers need its database and storage.
        time: column of the prediction time, a timestamp with a zone (SEMANTICS 1.1).
        mode: ``knowledge``: only rows and events that serving could have known by then count; or ``event_time``.
        partitions: tasks, each with a range of the entities' buckets; None: two per CPU of the cluster.
        ordered: whether the result has the order of the dataset, which takes a sort.

    Raises:
        RequestError: there is no such service.
        SourceError: a column is missing, or of another type; or a view has never been filled.
    """
    join = prepare_join(project, service, time_column=time, mode=mode)
    for first in dataset.limit(1).iter_batches(batch_format="pyarrow"):
        join.check(first.schema)
    count = partitions or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))

    def add_partition(rows: pa.Table) -> pa.Table:
        return rows.append_column(_PARTITION, join.find_partitions([rows[name] for name in join.keys], count))

    def add_features(rows: pa.Table) -> pa.Table:
        return pa.Table.from_batches(join.add(rows.drop_columns([_PARTITION]).to_batches()))

    numbered = dataset.with_column(_ROW, monotonically_increasing_id())
    grouped = numbered.map_batches(add_partition, batch_format="pyarrow", batch_size=None).groupby(_PARTITION, count)
    joined = grouped.map_groups(add_features, batch_format="pyarrow")
    return (joined.sort(_ROW) if ordered else joined).drop_columns([_ROW])
