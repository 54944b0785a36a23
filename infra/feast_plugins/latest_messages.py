"""Read the latest rows of a source as Feast messages, for views with types that only messages support."""

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

from skewless.contract.arrow_types import cast_times
from skewless.contract.errors import SourceError
from skewless.infra.feast_plugins.exact_values import fit_table
from skewless.infra.feast_plugins.rows import Row, time_columns
from skewless.infra.feast_plugins.stored_views import Table


def read_latest_rows(
    context: ExecutionContext, registry: BaseRegistry, task: MaterializationTask, start: datetime
) -> pa.Table:
    """Return the latest row of each entity in a range of event times, with the view's column names.

    Args:
        start: start of the range; its end is that of the task.

    Raises:
        ValueError: the view has validation enabled, and its source does not pass.
    """
    view = task.feature_view
    source = get_batch_source(view)
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


def to_messages(view: Table, table: pa.Table, batch_rows: int) -> Iterator[list[Row]]:
    """Yield rows in the form that Feast writes to an online store, in batches.

    Raises:
        SourceError: a value does not fit the declared type, or a list contains a null that messages cannot have.
    """
    event, created = time_columns(get_batch_source(view))
    for batch in fit_table(view, table).to_batches(max_chunksize=batch_rows):
        yield _rows(view, batch, event, created)


def _validate(context: ExecutionContext, registry: BaseRegistry, task: MaterializationTask, table: pa.Table) -> None:
    view: Any = task.feature_view
    builder: Any = LocalFeatureBuilder(registry, task, backend=PandasBackend())
    read = LocalSourceReadNode("source", get_batch_source(view), builder.get_column_info(view))
    context.node_outputs[read.name] = ArrowTableValue(table)
    builder.build_validation_node(view, read).execute(context)


def get_batch_source(view: Table) -> DataSource:
    """Return the batch source of a view.

    Raises:
        SourceError: the view has none.
    """
    source: DataSource | None = view.batch_source
    if source is None:
        raise SourceError(f"view {view.name!r}", "has no batch source to materialize from", fix="add a batch source")
    return source


def _rows(view: Table, batch: pa.RecordBatch, event: str, created: str) -> list[Row]:
    # Python integers: numpy would convert an int64 column with a null to float64.
    columns = {
        name: batch.column(name).to_pylist(maps_as_pydicts="strict") for name in _names(view, batch.schema.names)
    }
    return _build_rows(view, columns, _read_times(batch, event), _read_times(batch, created) if created else None)


def frame_to_messages(view: Table, frame: pd.DataFrame) -> list[Row]:
    """Return a pushed frame in the form that Feast writes to an online store.

    Feast converts with Arrow, which would give each dict of a column the keys of all other dicts.
    """
    source = get_batch_source(view)
    frame = frame.rename(columns=source.field_mapping or {})
    event, created = time_columns(source)
    columns = {name: _plain(frame[name].tolist()) for name in _names(view, frame.columns)}
    return _build_rows(view, columns, _parse_times(frame[event]), _parse_times(frame[created]) if created else None)


def _names(view: Table, existing: Container[str]) -> list[str]:
    """Return the columns for messages: existing key columns, and all feature columns."""
    keys = [str(column.name) for column in view.entity_columns if column.name in existing]
    return [*keys, *(str(field.name) for field in view.features if field.name not in keys)]


def _build_rows(
    view: Table, columns: Mapping[str, list[Any]], times: Sequence[datetime], created: Sequence[datetime] | None
) -> list[Row]:
    """Return columns of plain values as rows of messages; rows of a view without entities have no key."""
    types = {field.name: field.dtype.to_value_type() for field in (*view.features, *view.entity_columns)}
    messages = {name: python_values_to_proto_values(values, types[name]) for name, values in columns.items()}
    keys = {column.name: messages.pop(column.name) for column in view.entity_columns if column.name in messages}
    return [
        (
            EntityKey(join_keys=list(keys), entity_values=[values[i] for values in keys.values()]),
            {name: values[i] for name, values in messages.items()},
            times[i],
            created[i] if created else None,
        )
        for i in range(len(times))
    ]


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN


def _plain(values: list[Any]) -> list[Any]:
    return [None if _is_missing(value) else value for value in values]


def _parse_times(column: pd.Series[Any]) -> list[Any]:
    return _plain(pd.to_datetime(column, utc=True).tolist())


def _read_times(batch: pa.RecordBatch, name: str) -> list[datetime]:
    column = batch.column(name)
    times: list[datetime] = cast_times(column, pa.timestamp("us", tz=getattr(column.type, "tz", None))).to_pylist()
    return times
