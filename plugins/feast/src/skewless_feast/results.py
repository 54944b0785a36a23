"""The results of retrieval jobs: a point-in-time join, or the rows of one query."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.repo_config import RepoConfig

from skewless.contract.arrow_types import cast_times
from skewless.contract.clock import from_us
from skewless.contract.errors import RequestError
from skewless.contract.rows import NO_TIME
from skewless.contract.status import BoolArray, Status, row_status
from skewless.infra.definitions.compiler.views import to_dtype
from skewless.infra.definitions.sources.source_schema import repo_of, settings_of, state_of
from skewless.infra.ingest.materialization.skipped_rows import reject_skipped, warn_skipped
from skewless.infra.reads.offline import arrays
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.matched_rows import HistoryRows, fetch_rows, find_rows
from skewless.infra.reads.offline.sources import Table
from skewless.infra.reads.offline.sql import quote, sql_literal
from skewless_feast.entity_rows import EntityRows
from skewless_feast.exact_values import cast_key, fit_lists
from skewless_feast.feature_history import EVENT, build_view_history
from skewless_feast.requested_features import RequestedFeatures, RequestedView
from skewless_feast.retrieval import SkewlessRetrievalJob
from skewless_feast.stored_views import is_windowed

if TYPE_CHECKING:
    from skewless.contract.spec import TimeMode

Entities = Callable[[duckdb.DuckDBPyConnection], EntityRows]


@contextmanager
def open_connection(config: RepoConfig) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection that resolves paths relative to the repo and spills into the state folder.

    Raises:
        DefinitionError: a setting is invalid.
    """
    settings = settings_of(config)
    store = config.offline_store
    limit = getattr(store, "memory_limit", None) or settings.memory_limit
    threads = getattr(store, "threads", None) or settings.threads
    with connect(state_of(config) / "spill", memory_limit=limit, threads=threads) as connection:
        connection.execute(f"SET file_search_path = {sql_literal(str(repo_of(config)))}")
        yield connection


@dataclass(kw_only=True, eq=False)
class PointInTimeJob(SkewlessRetrievalJob):
    """Entity rows with their features at their times.

    Args:
        requested: the requested features.
        refs: their names in the request.
        entities: reads the entity rows on a connection.
        as_known: whether a feature row counts only from its created time on, and an event from when serving could
            have known it.
    """

    requested: RequestedFeatures
    refs: list[str]
    entities: Entities
    as_known: bool = False

    @cached_property
    def metadata(self) -> RetrievalMetadata:
        """Return the requested features, the key columns and the time range.

        Raises:
            RequestError: the entity rows cannot be read.
        """
        with open_connection(self.config) as connection:
            rows = self.entities(connection)
        times = cast_times(rows.table[rows.time], pa.timestamp("us")).cast(pa.int64())
        ends = pc.min_max(times).as_py()
        first, last = (None if ends[end] is None else from_us(ends[end]) for end in ("min", "max"))
        return RetrievalMetadata(
            features=self.refs,
            keys=[name for name in rows.table.column_names if name != rows.time],
            min_event_timestamp=first,
            max_event_timestamp=last,
        )

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        """Return the entity rows in their order, with duplicates, and the stored features of the request."""
        with open_connection(self.config) as connection:
            entities = self.entities(connection)
            table = entities.table
            for view in self.requested.views:
                rows = _read_view(self, connection, entities, view).in_order()
                for name, label in zip(rows.column_names, view.labels.values(), strict=True):
                    table = table.append_column(label, rows[name])
        return table

    def order_columns(self, table: pa.Table) -> pa.Table:
        """Return a table with the columns of the entity rows, and then the features as requested."""
        order = [name for name in self.requested.order if name in table.column_names]
        return table.select([name for name in table.column_names if name not in set(order)] + order)


@dataclass(kw_only=True, eq=False)
class QueryJob(SkewlessRetrievalJob):
    """The rows of one query over one table.

    Args:
        query: SQL that reads ``table.relation`` once.
    """

    table: Table
    query: str

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        """Return the rows in the order of the source."""
        with open_connection(self.config) as connection, self.table.open(connection):
            return connection.sql(self.query, params=self.table.parameters).to_arrow_table()


def _read_view(
    job: PointInTimeJob, connection: duckdb.DuckDBPyConnection, entities: EntityRows, requested: RequestedView
) -> HistoryRows:
    for label in requested.labels.values():
        if label in entities.table.column_names:
            raise RequestError(
                "entity rows",
                "have a column with the name of a requested feature",
                value=label,
                fix="rename or remove the column, or pass full_feature_names=True",
            )
    if is_windowed(requested.view):
        from skewless_feast.window_history import read_window_rows  # noqa: PLC0415 - for projects with windows only

        mode: TimeMode = "knowledge" if job.as_known else "event_time"
        return read_window_rows(job.config, connection, entities, requested, mode)
    view = build_view_history(job.config, connection, requested, entities.types)
    keys = {name: _entity_key(entities, name, target) for name, target in view.types.items()}
    rows = entities.select_keys(connection, keys)
    skipped = view.count_skipped(connection)
    if settings_of(job.config).strict:
        reject_skipped(requested.view.name, skipped)
    warn_skipped(requested.view.name, skipped)
    with view.open(connection, as_known=job.as_known) as (history, parameters, count):
        ids = find_rows(connection, history, parameters, rows, count)
        matched = fetch_rows(connection, history, parameters, ids, history.columns)
    expired = _find_expired(rows, matched, view.ttl_us)
    return HistoryRows(
        # Expired rows become misses: their number is the length of the table.
        table=_fit_lists(requested, matched.table.drop_columns([EVENT])).combine_chunks(),
        at=np.where(expired, matched.table.num_rows, matched.at).astype(np.int64),
    )


def _fit_lists(requested: RequestedView, table: pa.Table) -> pa.Table:
    """Return matched rows with lists that Feast's messages can represent, as online."""
    declared = {field.name: field for field in requested.view.features}
    for i, name in enumerate(requested.labels):
        index = table.schema.get_field_index(f"__f{i}")
        if name in declared and to_dtype(declared[name].dtype) is None:
            owner = f"source of view {requested.view.name!r} column {name!r}"
            table = table.set_column(index, f"__f{i}", fit_lists(owner, declared[name].dtype, table.column(index)))
    return table


def _entity_key(entities: EntityRows, name: str, target: str) -> str:
    if name not in entities.types:
        return "''"
    return cast_key(quote(name), entities.types[name], target)


def _find_expired(rows: pa.Table, matched: HistoryRows, ttl_us: int) -> BoolArray:
    """Return which entity rows matched a row that is older than the ttl."""
    if ttl_us <= 0:
        return np.zeros(len(matched.at), dtype=np.bool_)
    t = arrays.to_int64(rows[TIME], NO_TIME)
    has_row: BoolArray = matched.at < matched.table.num_rows
    event_ts = np.append(arrays.to_int64(matched.table[EVENT], NO_TIME), NO_TIME)[matched.at]
    # The function of the online store, so that both sides expire a row at the same microsecond (SEMANTICS 2.4).
    return np.asarray(row_status(has_row, np.where(has_row, event_ts, t), t, ttl_us) == Status.EXPIRED)
