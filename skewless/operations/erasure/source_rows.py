"""Finds rows of an entity in the sources of a project, which a later run would accept again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from skewless.contract.columns import Column
from skewless.contract.errors import SourceError
from skewless.contract.keys import parse_key
from skewless.infra.offline.changes import count_matching
from skewless.infra.offline.source_columns import NO_ENTITY
from skewless.infra.offline.sources import Table, find_table, has_files, view_table
from skewless.infra.streams.history_file import file_columns
from skewless.operations.erasure.entity import Entity
from skewless.workspace import Workspace


def check_sources(project: Workspace, entity: Entity) -> None:
    """Check that no source of a view, and no history of an event source, has a row of an entity.

    Raises:
        SourceError: one has, or it cannot be read.
    """
    for table, columns in _list_tables(project):
        if not entity.keys.keys() <= columns.keys():
            continue
        values = [
            (columns[name][0], columns[name][1].dtype, parse_key(columns[name][1], text))
            for name, text in entity.keys.items()
        ]
        rows = count_matching(project.connection, table, values)
        if rows:
            raise SourceError(
                table.name,
                f"still has {rows:,} rows of the entity, which a later run would accept again",
                value=table.files[0],
                fix="delete them there first, or move the file away; then erase again",
            )


def _list_tables(project: Workspace) -> Iterator[tuple[Table, Mapping[str, tuple[str, Column]]]]:
    """Yield each table with its columns, by key: their names in the table, and the key."""
    plan = project.needed.plan
    for view in plan.views:
        if has_files(project.repo, view.source.path):
            keys = {key.name: (view.source.column(key.name), key) for key in view.keys if key.name != NO_ENTITY}
            yield view_table(project.repo, view), keys
    for source in plan.sources:
        if source.history is not None and has_files(project.repo, source.history):
            declared = {column.name: column.dtype for column in file_columns(source)}
            name = f"history of event source {source.name!r}"
            columns = {column.name: (column.name, column) for column in source.columns}
            yield find_table(project.repo, source.history, name, declared), columns
