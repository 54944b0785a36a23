"""The newest rows of a source as Feast's messages, for views whose types only Feast's messages can carry."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
from feast.data_source import DataSource
from feast.infra.common.materialization_job import MaterializationTask
from feast.infra.compute_engines.backends.pandas_backend import PandasBackend
from feast.infra.compute_engines.dag.context import ExecutionContext
from feast.infra.compute_engines.local.arrow_table_value import ArrowTableValue
from feast.infra.compute_engines.local.feature_builder import LocalFeatureBuilder
from feast.infra.compute_engines.local.nodes import LocalSourceReadNode
from feast.infra.registry.base_registry import BaseRegistry
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.utils import _get_column_names

from skewless.contract.errors import SourceError
from skewless.infra.feast_plugins.exact_values import fit_table
from skewless.infra.feast_plugins.frames import moments_of
from skewless.infra.feast_plugins.rows import Row
from skewless.infra.feast_plugins.stored_views import Table


def newest_rows(
    context: ExecutionContext, registry: BaseRegistry, task: MaterializationTask, start: datetime
) -> pa.Table:
    """Return the newest row of each entity between two event times, its columns named as the view names them.

    Args:
        start: where to begin; the task's end is the end.

    Raises:
        ValueError: the view asks for validation, and its source does not hold it.
    """
    view = task.feature_view
    source = batch_source(view)
    keys, features, event, created = _get_column_names(view, context.entity_defs)
    job = context.offline_store.pull_latest_from_table_or_query(
        config=context.repo_config,
        data_source=source,
        join_key_columns=keys,
        feature_name_columns=features,
        timestamp_field=event,
        created_timestamp_column=created,
        start_date=start,
        end_date=task.end_time,
    )
    table = job.to_arrow()
    renamed = source.field_mapping or {}
    table = table.rename_columns([renamed.get(name, name) for name in table.column_names])
    if view.enable_validation:
        _validate(context, registry, task, table)
    return table


def as_messages(view: Table, table: pa.Table, batch_rows: int) -> Iterator[list[Row]]:
    """Yield rows as Feast writes them to an online store, some at a time.

    Raises:
        SourceError: a value does not fit the declared type, or a list holds a null that has no value.
    """
    event, created = moments_of(batch_source(view))
    for batch in fit_table(view, table).to_batches(max_chunksize=batch_rows):
        yield _rows(view, batch, event, created)


def _validate(context: ExecutionContext, registry: BaseRegistry, task: MaterializationTask, table: pa.Table) -> None:
    view: Any = task.feature_view
    builder: Any = LocalFeatureBuilder(registry, task, backend=PandasBackend())
    read = LocalSourceReadNode("source", batch_source(view), builder.get_column_info(view))
    context.node_outputs[read.name] = ArrowTableValue(table)
    builder.build_validation_node(view, read).execute(context)


def batch_source(view: Table) -> DataSource:
    """Return where a view's history stands.

    Raises:
        SourceError: it has none.
    """
    source: DataSource | None = view.batch_source
    if source is None:
        raise SourceError(f"view {view.name!r}", "has no batch source to be materialised from", fix="give it one")
    return source


def _rows(view: Table, batch: pa.RecordBatch, event: str, created: str) -> list[Row]:
    # From Python's own integers: numpy would turn int64 beside a null into float64.
    columns = {
        name: batch.column(name).to_pylist(maps_as_pydicts="strict") for name in _names(view, batch.schema.names)
    }
    return _zipped(view, columns, _times(batch, event), _times(batch, created) if created else None)


def frame_messages(view: Table, frame: pd.DataFrame) -> list[Row]:
    """Return a frame that is pushed as Feast writes it to an online store.

    Feast's own conversion passes through Arrow, where every dict of a column gets the keys of all others.
    """
    source = batch_source(view)
    frame = frame.rename(columns=source.field_mapping or {})
    event, created = moments_of(source)
    columns = {name: _plain(frame[name].tolist()) for name in _names(view, frame.columns)}
    return _zipped(view, columns, _moments(frame[event]), _moments(frame[created]) if created else None)


def _names(view: Table, there: Container[str]) -> list[str]:
    """Return the columns that messages are made of; those of keys may be missing, those of features may not."""
    keys = [str(column.name) for column in view.entity_columns if column.name in there]
    return [*keys, *(str(field.name) for field in view.features if field.name not in keys)]


def _zipped(
    view: Table, columns: Mapping[str, list[Any]], times: Sequence[datetime], created: Sequence[datetime] | None
) -> list[Row]:
    """Return plain columns as rows of messages; the rows of a view without entities have no key."""
    types = {field.name: field.dtype.to_value_type() for field in (*view.features, *view.entity_columns)}
    made = {name: python_values_to_proto_values(values, types[name]) for name, values in columns.items()}
    keys = {column.name: made.pop(column.name) for column in view.entity_columns if column.name in made}
    return [
        (
            EntityKey(join_keys=list(keys), entity_values=[values[i] for values in keys.values()]),
            {name: values[i] for name, values in made.items()},
            times[i],
            created[i] if created else None,
        )
        for i in range(len(times))
    ]


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN


def _plain(values: list[Any]) -> list[Any]:
    return [None if _is_missing(value) else value for value in values]


def _moments(column: pd.Series[Any]) -> list[Any]:
    return _plain(pd.to_datetime(column, utc=True).tolist())


def _times(batch: pa.RecordBatch, name: str) -> list[datetime]:
    column = batch.column(name)
    zone = getattr(column.type, "tz", None)
    times: list[datetime] = column.cast(pa.timestamp("us", tz=zone), safe=False).to_pylist()
    return times
