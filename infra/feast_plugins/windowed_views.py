"""Which Feast views are windowed, and what the plan in force says of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from feast import StreamFeatureView

from skewless.contract.errors import RequestError, StalePlanError
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.feast_plugins.stored_views import Table
from skewless.infra.plans.applied_plan import AppliedPlanReader


def is_windowed(table: Table) -> bool:
    """Say whether a view's features are computed from the events of a stream, and stand in no table."""
    return isinstance(table, StreamFeatureView) and bool(table.aggregations)


def refuse_windowed(table: Table) -> None:
    """Refuse to write features of a windowed view.

    Raises:
        RequestError: the view is one.
    """
    if is_windowed(table):
        raise RequestError(
            f"windowed view {table.name!r}",
            "has no rows that could be written: its features are computed from events",
            fix=f"push events to its source: store.push({table.stream_source.name!r}, frame)",
        )


class WindowPlans:
    """The windowed views and event sources of the plan in force; threads may share it.

    It says what a windowed view is, not Feast's registry: workers fill the states of the plan's views.
    """

    def __init__(self, state: Path) -> None:
        self._file = AppliedPlanReader(state)

    @property
    def plan(self) -> FeaturePlan:
        """The plan in force.

        Raises:
            StalePlanError: nothing was applied yet, or the file is damaged.
        """
        return self._file.read()

    def view(self, table: Table, names: Iterable[str] = ()) -> WindowView:
        """Return what the plan has under the name of a Feast view.

        Args:
            names: features that it must have.

        Raises:
            StalePlanError: the plan lacks the view, or has it without one of its registered features.
            RequestError: one of the names is no feature of the view.
        """
        found = next((item for item in self.plan.windows if item.name == table.name), None)
        keys = {column.name for column in table.entity_columns}
        own = {column.name for column in found.features} if found else set()
        # Feast counts the keys of a view without a declared schema among its features.
        lacking = sorted({field.name for field in table.features} - keys - own)
        if found is None or lacking:
            raise StalePlanError(
                f"windowed view {table.name!r}",
                "is not in the applied plan as Feast's registry has it",
                value=lacking[0] if found else None,
                fix="run `skewless apply`, which puts both in force",
            )
        for name in names:
            if name not in own:
                raise RequestError(
                    f"windowed view {table.name!r}",
                    "has no such feature",
                    value=name,
                    fix=f"use one of {', '.join(column.name for column in found.features)}",
                )
        return found

    def source(self, name: str) -> EventSource | None:
        """Return the plan's event source of a name, None where it has none."""
        return next((item for item in self.plan.sources if item.name == name), None)
