"""The sources of feature views as SQL views, for entity rows that are asked for in SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import duckdb
from feast.repo_config import RepoConfig

from skewless.infra.feast_plugins.asked_features import AskedView
from skewless.infra.feast_plugins.feature_history import view_table
from skewless.infra.feast_plugins.windowed import is_windowed
from skewless.infra.offline.sql import quote


@contextmanager
def source_views(
    config: RepoConfig, connection: duckdb.DuckDBPyConnection, views: Sequence[AskedView]
) -> Iterator[None]:
    """Let SQL read each view's source under the names of the view and of the source, for a while.

    Windowed views have no table that could be read.
    """
    views = [asked for asked in views if not is_windowed(asked.view)]
    named = named_relations(config, views)
    with ExitStack() as stack:
        for asked in views:
            stack.enter_context(view_table(config, asked.view).opened(connection))
        for name, relation in named.items():
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS SELECT * FROM {relation}")
        try:
            yield
        finally:
            for name in named:
                connection.execute(f"DROP VIEW IF EXISTS {quote(name)}")


def named_relations(config: RepoConfig, views: Sequence[AskedView]) -> dict[str, str]:
    """Return what SQL may read, by name: the source of each view under its own name and the view's."""
    named: dict[str, str] = {}
    for asked in views:
        if is_windowed(asked.view):
            continue
        relation = view_table(config, asked.view).literal
        named |= {asked.view.batch_source.name: relation, asked.view.name: relation}
    return named
