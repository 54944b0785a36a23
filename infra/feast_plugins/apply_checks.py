"""What `feast apply` checks of the views that it keeps, beyond what Feast does."""

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


def check_kept(config: RepoConfig, view: Table) -> None:
    """Check that the features of a view have the declared types in its source, or types that become them exactly.

    A source that is not there yet, or that cannot be read now, is materialisation's to complain of.

    Raises:
        SourceError: a column has another type.
    """
    if not is_plain(view) or view.batch_source is None:
        return
    owner = f"feature view {view.name!r}"
    renamed = {name: column for column, name in (view.batch_source.field_mapping or {}).items()}
    declared = {renamed.get(field.name, field.name): to_dtype(field.dtype) for field in view.features}
    wanted = {column: dtype for column, dtype in declared.items() if dtype is not None}
    try:
        if not has_files(repo_of(config), readable_path(view.batch_source, owner)):
            return
        table = source_table(config, view.batch_source, owner, wanted)
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            types = table.column_types(connection)
    except SourceError:
        return
    there = {column: dtype for column, dtype in wanted.items() if column in types}
    check_columns(table.name, types, there, naive_is_utc=True, converted=there)
