"""Whether a windowed view can sum the events that its log holds."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from skewless.contract.errors import SourceError
from skewless.contract.windows.view import WindowView
from skewless.infra.offline.window_events import LogPart, WindowEvents


def check_sums(connection: duckdb.DuckDBPyConnection, view: WindowView, parts: Sequence[LogPart]) -> None:
    """Check that no accepted event is too large for a view to sum exactly: it would not count in the view.

    New events of that kind are refused when they come (SEMANTICS 3.9).

    Raises:
        SourceError: some are; names the column and how many.
    """
    for column, count in WindowEvents(connection, view, parts, {}, known=False).beyond().items():
        digits = view.scales.get(column, 0)
        lower = f"lower the tag skewless.scale.{column}, which is {digits}, or " if digits else ""
        raise SourceError(
            f"windowed view {view.name!r} column {column!r}",
            "is too large in accepted events to be summed exactly",
            value=f"{count} {'event' if count == 1 else 'events'}",
            fix=f"{lower}leave them out by a bool column and the tag skewless.where",
        )
