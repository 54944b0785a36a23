"""Additional checks of `feast apply`: the types of a view's features in its source."""

from __future__ import annotations

import duckdb
from feast.repo_config import RepoConfig

from skewless.contract.errors import SourceError
from skewless.infra.compiler.views import to_dtype
from skewless.infra.feast_plugins.stored_views import Table, is_plain
from skewless.infra.offline.source_columns import check_columns
from skewless.infra.offline.sources import has_files
from skewless.infra.sources.place import repo_of
from skewless.infra.sources.source_schema import readable_path, source_table


def check_feature_types(config: RepoConfig, view: Table) -> None:
    """Check that the types of a view's features fit the columns of its source.

    A source that is missing or unreadable is not checked here: materialization reports it.

    Raises:
        SourceError: a column has another type.
    """
    if not is_plain(view) or view.batch_source is None:
        return
    owner = f"feature view {view.name!r}"
    renamed = {name: column for column, name in (view.batch_source.field_mapping or {}).items()}
    features = {renamed.get(field.name, field.name): to_dtype(field.dtype) for field in view.features}
    declared_types = {column: dtype for column, dtype in features.items() if dtype is not None}
    try:
        if not has_files(repo_of(config), readable_path(view.batch_source, owner)):
            return
        table = source_table(config, view.batch_source, owner, declared_types)
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            types = table.column_types(connection)
    except SourceError:
        return
    existing = {column: dtype for column, dtype in declared_types.items() if column in types}
    check_columns(table.name, types, existing, naive_is_utc=True, converted=existing)
