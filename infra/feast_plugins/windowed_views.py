"""Find out whether a Feast view is windowed, and get its definition from the applied plan."""

from __future__ import annotations

from collections.abc import Iterable

from feast import StreamFeatureView

from skewless.contract.errors import RequestError, StalePlanError
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.feast_plugins.stored_views import Table
from skewless.infra.plans.applied_plan import AppliedPlanReader
from skewless.infra.storage.project_state import ProjectState


def is_windowed(table: Table) -> bool:
    """Say whether a view's features are computed from the events of a stream, not read from a table."""
    return isinstance(table, StreamFeatureView) and bool(table.aggregations)


def check_writable(table: Table) -> None:
    """Check that features of a view can be written directly.

    Raises:
        RequestError: the view is windowed.
    """
    if is_windowed(table):
        raise RequestError(
            f"windowed view {table.name!r}",
            "has no rows to write: its features are computed from events",
            fix=f"push events to its source: store.push({table.stream_source.name!r}, frame)",
        )


class WindowPlans:
    """The windowed views and event sources of the applied plan; threads may share it.

    The definition of a windowed view comes from the plan, not from Feast's registry: workers build the plan's states.
    An apply is noticed within a second, and at once by a read of a view, feature or source that the plan lacks.
    """

    def __init__(self, state: ProjectState) -> None:
        self._reader = AppliedPlanReader(state, interval_s=1.0)

    @property
    def plan(self) -> FeaturePlan:
        """The applied plan.

        Raises:
            StalePlanError: no plan was applied yet, or it is corrupt.
        """
        return self._reader.read()

    def view(self, table: Table, names: Iterable[str] = ()) -> WindowView:
        """Return the windowed view of the plan with the name of a Feast view.

        Args:
            names: required features.

        Raises:
            StalePlanError: the plan has no such view, or the view has no such registered feature.
            RequestError: a required feature is unknown.
        """
        view, missing = _compare(self.plan, table)
        if view is None or missing:
            view, missing = _compare(self._reader.read(now=True), table)
        if view is None or missing:
            raise StalePlanError(
                f"windowed view {table.name!r}",
                "differs between the applied plan and Feast's registry",
                value=missing[0] if view else None,
                fix="run `skewless apply`, which updates both",
            )
        for name in names:
            if name not in {column.name for column in view.features}:
                raise RequestError(
                    f"windowed view {table.name!r}",
                    "has no such feature",
                    value=name,
                    fix=f"use one of {', '.join(column.name for column in view.features)}",
                )
        return view

    def source(self, name: str) -> EventSource | None:
        """Return the plan's event source with a name, or None."""
        for now in (False, True):
            for source in self._reader.read(now=now).sources:
                if source.name == name:
                    return source
        return None


def _compare(plan: FeaturePlan, table: Table) -> tuple[WindowView | None, list[str]]:
    """Return the plan's view with the name of a Feast view, and the Feast view's features that it does not have."""
    view = next((item for item in plan.windows if item.name == table.name), None)
    own = {column.name for column in view.features} if view else set()
    # For a view without a declared schema, Feast includes the keys in its features.
    keys = {column.name for column in table.entity_columns}
    return view, sorted({field.name for field in table.features} - keys - own)
