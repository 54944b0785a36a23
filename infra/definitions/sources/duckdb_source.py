"""Tables and views of DuckDB database files as Feast data sources."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import RepoConfig
from feast.type_map import pa_to_feast_value_type
from feast.value_type import ValueType

from skewless.infra.definitions.sources.source_schema import check_source, column_types, repo_of
from skewless.infra.reads.offline.database_table import DatabaseTable
from skewless.infra.reads.offline.sources import find_table

# The fields of all of Feast's sources that ours has, too.
_SHARED = ("name", "timestamp_field", "created_timestamp_column", "field_mapping", "description", "tags", "owner")
CLASS_PATH = "skewless.infra.definitions.sources.duckdb_source.DuckDBSource"


class DuckDBSource(DataSource):
    """A table or view in a DuckDB database file.

    Args:
        path: of the database, relative to the repo.
        table: ``table`` or ``schema.table``, each part quoted as in SQL.
        name: of the source; by default the table's address.
        timestamp_field: column with the event time.
        created_timestamp_column: column with the created time.
        field_mapping: column of the table -> name in the view.
        description: for people.
        tags: of the source.
        owner: of the source.
    """

    def __init__(
        self,
        *,
        path: str,
        table: str,
        name: str = "",
        timestamp_field: str = "",
        created_timestamp_column: str = "",
        field_mapping: Mapping[str, str] | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> None:
        self.warehouse = DatabaseTable(path=path, table=table)
        super().__init__(
            name=name or self.warehouse.address,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=dict(field_mapping or {}),
            description=description,
            tags=dict(tags or {}),
            owner=owner,
        )

    @property
    def path(self) -> str:
        """The address of the table, where other sources have a path."""
        return self.warehouse.address

    def __eq__(self, other: object) -> bool:
        same = super().__eq__(other)  # type: ignore[no-untyped-call]  # Feast's has no types
        return bool(same) and isinstance(other, DuckDBSource) and self.warehouse == other.warehouse

    def __hash__(self) -> int:
        return hash((self.name, self.warehouse))

    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        """Return Feast's number for custom sources."""
        return DataSourceProto.CUSTOM_SOURCE

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> DuckDBSource:
        """Return the source from its form in a registry."""
        warehouse = _parse_options(data_source.custom_options)
        return DuckDBSource(
            path=warehouse.path,
            table=warehouse.table,
            **{name: getattr(data_source, name) for name in _SHARED},
        )

    def _to_proto_impl(self) -> DataSourceProto:
        return DataSourceProto(
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=CLASS_PATH,
            custom_options=_options(self.warehouse),
            **{name: getattr(self, name) for name in _SHARED},
        )

    def validate(self, config: RepoConfig) -> None:
        """Check that the table can be read and has the named columns.

        Raises:
            SourceError: it cannot be read, or lacks a column.
        """
        check_source(find_table(repo_of(config), self.path, f"source {self.name!r}"), self)

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """Return the function from Arrow types to Feast types."""
        return pa_to_feast_value_type

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """Return each column with its Arrow type.

        Raises:
            SourceError: the table cannot be read.
        """
        return column_types(find_table(repo_of(config), self.path, f"source {self.name!r}"))

    def get_table_query_string(self) -> str:
        """Return the name of the table in its database."""
        return self.warehouse.table


def _options(warehouse: DatabaseTable) -> DataSourceProto.CustomSourceOptions:
    text = json.dumps({"path": warehouse.path, "table": warehouse.table})
    return DataSourceProto.CustomSourceOptions(configuration=text.encode())


def _parse_options(options: DataSourceProto.CustomSourceOptions) -> DatabaseTable:
    data = json.loads(options.configuration)
    return DatabaseTable(path=data["path"], table=data["table"])
