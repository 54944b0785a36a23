"""The feature plan: the compiled definitions as frozen, hashed, plain data, shared by all parts of a project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

from skewless.contract.columns import (
    PREDICTION,
    REQUEST,
    Column,
    FeatureRef,
    Transform,
    digest,
    find_column,
)
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.names import check_name
from skewless.contract.plain_record import build_record
from skewless.contract.windows.view import EventSource, WindowView

BUCKETS = 4_096


@dataclass(frozen=True, kw_only=True)
class Source:
    """A user's table of feature rows.

    Args:
        path: Parquet or CSV file, folder or glob, relative to the repo, or the address of a table in a DuckDB file.
        event_column: column with the event time.
        created_column: column with the time at which the row was written, or None.
        tombstone_column: boolean column that marks a deletion, or None.
        columns: name in the plan -> column of the table, if they differ.
    """

    path: str
    event_column: str
    created_column: str | None = None
    tombstone_column: str | None = None
    columns: Mapping[str, str]

    def column(self, name: str) -> str:
        """Return the column that holds a key or feature."""
        return self.columns.get(name, name)


@dataclass(frozen=True, kw_only=True)
class View:
    """A latest-value feature view; times are microseconds.

    Args:
        ttl_us: rows older than this at prediction time are EXPIRED; 0: no limit.
        delay_us: declared time from ``event_ts`` to publication.
        freshness_us: rows older than this are stale; all rows are if the last run is older; 0: no limit.
        max_age_us: the view is UNAVAILABLE if its last run is older than this; 0: no limit.
    """

    name: str
    keys: tuple[Column, ...]
    features: tuple[Column, ...]
    source: Source
    ttl_us: int
    delay_us: int
    freshness_us: int
    max_age_us: int = 0

    def __post_init__(self) -> None:
        """Check the name: it becomes part of paths and keys."""
        check_name("feature view", self.name)

    @cached_property
    def hash(self) -> str:
        """Return the hash of all that determines the stored rows; part of the online key and of the log's folder.

        Time limits are not part of it: each model has its own ttl for the same rows.
        """
        data = asdict(self)
        for name in ("ttl_us", "delay_us", "freshness_us", "max_age_us"):
            del data[name]
        return digest(data)

    @property
    def partition(self) -> str:
        """Return the log partition of the view's batch rows (SEMANTICS 1.4)."""
        return f"batch/{self.name}-{self.hash}"

    def feature(self, name: str) -> Column:
        """Return a feature by its name."""
        return find_column(self.features, name, f"view {self.name!r}", "feature")


@dataclass(frozen=True, kw_only=True)
class Service:
    """An ordered list of features, shared by models."""

    name: str
    features: tuple[FeatureRef, ...]

    def __post_init__(self) -> None:
        """Check the name: it becomes part of paths and keys."""
        check_name("feature service", self.name)


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """All definitions of a project, or the part that one model pins.

    Args:
        buckets: number of virtual buckets of the entities, see ``skewless.contract.buckets``.
    """

    project: str
    views: tuple[View, ...]
    request: tuple[Column, ...]
    transforms: tuple[Transform, ...]
    services: tuple[Service, ...]
    windows: tuple[WindowView, ...] = ()
    sources: tuple[EventSource, ...] = ()
    buckets: int = BUCKETS

    def __post_init__(self) -> None:
        """Check the name: it becomes part of paths and keys."""
        check_name("project", self.project)

    @cached_property
    def hash(self) -> str:
        """Return the hash of the whole plan."""
        return digest(self.as_dict())

    def view(self, name: str) -> View:
        """Return a view by its name."""
        return _find_named(self.views, "feature view", name)

    def window(self, name: str) -> WindowView:
        """Return a windowed view by its name."""
        return _find_named(self.windows, "windowed view", name)

    def source(self, name: str) -> EventSource:
        """Return an event source by its name."""
        return _find_named(self.sources, "event source", name)

    @property
    def all_views(self) -> tuple[View | WindowView, ...]:
        """Return the views of both kinds."""
        return (*self.views, *self.windows)

    def service(self, name: str) -> Service:
        """Return a service by its name."""
        return _find_named(self.services, "feature service", name)

    def transform(self, name: str) -> Transform:
        """Return a transform by its name."""
        return _find_named(self.transforms, "on-demand feature view", name)

    def dtype(self, ref: FeatureRef) -> DType:
        """Return the type of one column of a vector."""
        if ref.group == REQUEST:
            return _find_named(self.request, "request field", ref.name).dtype
        if ref.group == PREDICTION:
            return DType.TIMESTAMP
        for view in self.all_views:
            if view.name == ref.group:
                return view.feature(ref.name).dtype
        return _find_named(self.transform(ref.group).outputs, f"output of {ref.group!r}", ref.name).dtype

    def select_service(self, service: str) -> FeaturePlan:
        """Return the part of the plan that one service needs: a model pins this part."""
        chosen = self.service(service)
        # Transforms may read views and fields that are not features of the service: keep these, too.
        groups = {ref.group for ref in chosen.features}
        transforms = tuple(item for item in self.transforms if item.name in groups)
        inputs = [ref for item in transforms for ref in item.inputs]
        groups |= {ref.group for ref in inputs}
        fields = {ref.name for ref in (*inputs, *chosen.features) if ref.group == REQUEST}
        windows = tuple(view for view in self.windows if view.name in groups)
        return FeaturePlan(
            project=self.project,
            views=tuple(view for view in self.views if view.name in groups),
            request=tuple(column for column in self.request if column.name in fields),
            transforms=transforms,
            services=(chosen,),
            windows=windows,
            sources=tuple(source for source in self.sources if source.name in {view.source for view in windows}),
            buckets=self.buckets,
        )

    @property
    def join_keys(self) -> tuple[Column, ...]:
        """Return the distinct key columns of all views, in the order of the views."""
        return tuple({column.name: column for view in self.all_views for column in view.keys}.values())

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values.

        Some defaults are omitted, and so are those of later fields, so that unchanged definitions keep their hash.
        """
        defaults: dict[str, Any] = {"windows": (), "sources": (), "buckets": BUCKETS}
        parts = {name: tuple(item.as_dict() for item in getattr(self, name)) for name in ("windows", "sources")}
        data = {**asdict(replace(self, windows=(), sources=())), **parts}
        return {name: value for name, value in data.items() if value != defaults.get(name)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeaturePlan:
        """Build a plan from the result of ``as_dict``; its hash shows if it has parts that this release ignores."""
        return build_record(cls, {item.name: data[item.name] for item in fields(cls) if item.name in data})


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


_NamedT = TypeVar("_NamedT", bound=_HasName)


def _find_named(items: tuple[_NamedT, ...], kind: str, name: str) -> _NamedT:
    for item in items:
        if item.name == name:
            return item
    known = ", ".join(item.name for item in items) or "none"
    raise DefinitionError(kind, "is unknown", value=name, fix=f"use one of: {known}")
