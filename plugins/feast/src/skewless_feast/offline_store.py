"""The offline store for Feast: as-of joins on Parquet, CSV and DuckDB sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
from feast import OnDemandFeatureView
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.utils import compute_non_entity_date_range

from skewless.contract.clock import open_clock, to_us
from skewless.contract.columns import digest
from skewless.infra.definitions.sources.source_schema import (
    check_source,
    column_types,
    readable_path,
    repo_of,
    settings_of,
    source_table,
    state_of,
)
from skewless.infra.ingest.materialization.skipped_rows import record_skipped
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.offline.sources import has_files, is_remote
from skewless.infra.reads.offline.sql import quote, quote_all
from skewless_feast.entity_rows import query_entities, range_entities, read_entities
from skewless_feast.feature_history import HistorySource
from skewless_feast.requested_features import RequestedFeatures, Table, resolve_features
from skewless_feast.results import Entities, PointInTimeJob, QueryJob, open_connection
from skewless_feast.saved_rows import append_rows, write_log

_log = EventLogger()


class SkewlessOfflineStoreConfig(FeastConfigBaseModel):
    """The ``offline_store`` of a ``feature_store.yaml``.

    Args:
        memory_limit: memory limit of DuckDB, beyond which it spills; None: the project's setting.
        threads: threads of DuckDB; None: the project's setting.
        time_mode: ``event_time``: all rows and events before the time of an entity row count. ``knowledge``: only those
            known by then: rows from their created time on, as with ``filter_by_created_timestamp``, and events from
            when serving could have known them.
    """

    type: Literal["skewless_feast.offline_store.SkewlessOfflineStore"] = (
        "skewless_feast.offline_store.SkewlessOfflineStore"
    )
    memory_limit: str | None = None
    threads: int | None = None
    time_mode: Literal["event_time", "knowledge"] = "event_time"


class SkewlessOfflineStore(OfflineStore):
    """Reads the batch sources of a Feast project."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[Table],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pa.Table | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        filter_by_created_timestamp: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return a job for the features at the times of entity rows, in their order.

        Args:
            entity_df: a data frame, an Arrow table, or DuckDB SQL, which can read each view's source under the names
                of the view and of the source, and files relative to the repo; None: one row for each key that has
                a row from ``start_date`` to ``end_date``, with the end as its time.
            filter_by_created_timestamp: a row counts only from its created time on, and an event of a windowed view
                from when serving could have known it; ``time_mode: knowledge`` sets this for all requests.

        Raises:
            RequestError: a feature is unknown, or two features have one name.
            StalePlanError: a windowed view is not in the applied plan.
        """
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        requested = resolve_features(feature_refs, feature_views, on_demand, full_names=full_feature_names)
        return PointInTimeJob(
            config=config,
            full_feature_names=full_feature_names,
            on_demand=on_demand,
            requested=requested,
            refs=feature_refs,
            entities=_entity_reader(config, requested, entity_df, (start_date, end_date)),
            as_known=filter_by_created_timestamp or getattr(config.offline_store, "time_mode", "") == "knowledge",
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Return a job for the last row of each key in a range of event times; both ends are included.

        Among rows with equal event times, the latest created time wins. Rows without an event time or a key are
        skipped and counted.

        Raises:
            GateError: rows are skipped, and the setting ``strict`` is on.
        """
        source, condition = _open_range(config, data_source, timestamp_field, start_date, end_date)
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column]
        order = [f"{source.time_sql(timestamp_field)} DESC"]
        if created_timestamp_column:
            # A missing created time is the lowest (SEMANTICS 2.1).
            order.append(f"{source.time_sql(created_timestamp_column)} DESC NULLS LAST")
        keys = [quote(source.column(key)) for key in join_key_columns]
        required = {"event time": timestamp_field, **{f"key {key!r}": key for key in join_key_columns}}
        _count_skipped(config, data_source, source, required)
        partition = f"PARTITION BY {', '.join(keys)}" if keys else ""
        conditions = " AND ".join([condition, *(f"{key} IS NOT NULL" for key in keys)])
        query = (
            f"{_select_sql(source, columns)} WHERE {conditions}"
            f" QUALIFY row_number() OVER ({partition} ORDER BY {', '.join(order)}) = 1"
        )
        return QueryJob(config=config, table=source.table, query=query)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return a job for all rows in a range of event times; both ends are included."""
        source, condition = _open_range(config, data_source, timestamp_field, start_date, end_date)
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column]
        # Feast passes no feature if a transformation needs all columns.
        selected = _select_sql(source, columns) if feature_name_columns else f"SELECT * FROM {source.table.relation}"
        query = f"{selected} WHERE {condition}"
        return QueryJob(config=config, table=source.table, query=query)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: Table, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Append rows to a view's batch source without changing existing files.

        Raises:
            SourceError: the rows do not fit the source.
        """
        append_rows(config, feature_view, table)
        if progress is not None:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,  # noqa: ARG004 - Feast's signature
        logging_config: LoggingConfig,
        registry: BaseRegistry,  # noqa: ARG004 - Feast's signature
    ) -> None:
        """Append served features to the folder of a feature service's log, as Parquet files."""
        destination = logging_config.destination
        path = readable_path(destination.to_data_source(), "logging destination")
        write_log(repo_of(config) / path, data, getattr(destination, "partition_by", None) or ())

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Check that a source can be read and has its time columns; log a warning if the file is missing.

        Raises:
            SourceError: it cannot be read, or a time column is missing.
        """
        owner = f"data source {data_source.name!r}"
        path = readable_path(data_source, owner)
        if is_remote(path) or has_files(repo_of(config), path):
            check_source(source_table(config, data_source, owner), data_source)
        else:
            _log.warning("source_missing", source=data_source.name, path=path, fix="put the file there")

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        """Return each column of a source with its Arrow type.

        Raises:
            SourceError: the source cannot be read.
        """
        return column_types(source_table(config, data_source, f"data source {data_source.name!r}"))


def _entity_reader(
    config: RepoConfig,
    requested: RequestedFeatures,
    entity_df: pd.DataFrame | pa.Table | str | None,
    dates: tuple[datetime | None, datetime | None],
) -> Entities:
    if entity_df is None:
        start, end = map(to_us, compute_non_entity_date_range([item.view for item in requested.views], *dates))
        return lambda connection: range_entities(config, connection, requested.views, start, end)
    if isinstance(entity_df, str):
        return lambda connection: query_entities(config, connection, requested.views, entity_df)
    return lambda connection: read_entities(connection, entity_df)


def _open_range(
    config: RepoConfig, data_source: DataSource, timestamp_field: str, start: datetime | None, end: datetime | None
) -> tuple[HistorySource, str]:
    with open_connection(config) as connection:
        # Feast passes the names of the source's columns here, and the names in the view elsewhere.
        table = source_table(config, data_source, f"data source {data_source.name!r}")
        source = HistorySource(table=table, types=table.column_types(connection), mapping={})
    time_sql = source.time_sql(timestamp_field)
    limits = [(">=", start), ("<=", end)]
    conditions = [f"{time_sql} {sign} {to_us(limit)}" for sign, limit in limits if limit is not None]
    return source, " AND ".join(conditions) or "true"


def _count_skipped(
    config: RepoConfig, data_source: DataSource, source: HistorySource, required: Mapping[str, str]
) -> None:
    """Count the rows of a source with a null in a required column; ``required``: description -> column."""
    conditions = {f"{name} is null": f"{quote(source.column(column))} IS NULL" for name, column in required.items()}
    with open_connection(config) as connection:
        reasons = source.count(connection, conditions)
    settings, name = settings_of(config), f"source {data_source.name}"
    now_us, identity = open_clock(settings.clock).now_us(), digest(data_source.name)
    record_skipped(state_of(config), name, identity, "materialize", reasons, now_us, strict=settings.strict)


def _select_sql(source: HistorySource, columns: Sequence[str | None]) -> str:
    # A column that is both key and feature is selected once.
    distinct = list(dict.fromkeys(column for column in columns if column))
    return f"SELECT {quote_all([source.column(column) for column in distinct])} FROM {source.table.relation}"
