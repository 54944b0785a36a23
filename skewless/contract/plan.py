"""The FeaturePlan: definitions compiled to frozen, hashed, plain data that every part shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

from skewless.contract.columns import (
    PREDICTION,
    REQUEST,
    Column,
    FeatureRef,
    Transform,
    columns_from,
    digest,
    find_column,
    refs_from,
)
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.names import check_name
from skewless.contract.windows.view import EventSource, WindowView


@dataclass(frozen=True, kw_only=True)
class Source:
    """A table of feature rows as the user keeps it.

    Args:
        path: Parquet or CSV file, folder or glob, relative to the repo, or the address of a table in a DuckDB file.
        event_column: when it happened.
        created_column: when the row was written, or None.
        tombstone_column: boolean column that marks a deletion, or None.
        columns: name in the plan -> column here, where they differ.
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
        ttl_us: rows older than this at the time of asking are EXPIRED; 0: no limit.
        delay_us: declared time from ``event_ts`` to publication.
        freshness_us: rows older than this are stale, and so are all where the last run is; 0: no limit.
        max_age_us: where the last run is older than this, the view is UNAVAILABLE; 0: no limit.
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
        """Refuse a name that could be something else than a name where it is a part of a path or a key."""
        check_name("feature view", self.name)

    @cached_property
    def hash(self) -> str:
        """Return the identity of the stored rows: part of the online key and of the log's folder.

        How long a row stays valid is not part of it: a model brings its own ttl.
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
        """Refuse a name that could be something else than a name where it is a part of a path or a key."""
        check_name("feature service", self.name)


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """All definitions of a project, or the part of them that one model pins."""

    project: str
    views: tuple[View, ...]
    request: tuple[Column, ...]
    transforms: tuple[Transform, ...]
    services: tuple[Service, ...]
    windows: tuple[WindowView, ...] = ()
    sources: tuple[EventSource, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a name that could be something else than a name where it is a part of a path or a key."""
        check_name("project", self.project)

    @cached_property
    def hash(self) -> str:
        """Return the identity of the whole plan."""
        return digest(self.as_dict())

    def view(self, name: str) -> View:
        """Return a view by its name."""
        return _named(self.views, "feature view", name)

    def window(self, name: str) -> WindowView:
        """Return a windowed view by its name."""
        return _named(self.windows, "windowed view", name)

    def source(self, name: str) -> EventSource:
        """Return an event source by its name."""
        return _named(self.sources, "event source", name)

    @property
    def all_views(self) -> tuple[View | WindowView, ...]:
        """Return the views of both kinds."""
        return (*self.views, *self.windows)

    def service(self, name: str) -> Service:
        """Return a service by its name."""
        return _named(self.services, "feature service", name)

    def transform(self, name: str) -> Transform:
        """Return a transform by its name."""
        return _named(self.transforms, "on-demand feature view", name)

    def dtype(self, ref: FeatureRef) -> DType:
        """Return the type of one column of a vector."""
        if ref.group == REQUEST:
            return _named(self.request, "request field", ref.name).dtype
        if ref.group == PREDICTION:
            return DType.TIMESTAMP
        for view in self.all_views:
            if view.name == ref.group:
                return view.feature(ref.name).dtype
        return _named(self.transform(ref.group).outputs, f"output of {ref.group!r}", ref.name).dtype

    def only(self, service: str) -> FeaturePlan:
        """Return the plan with just what one service needs: what a model pins."""
        chosen = self.service(service)
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
        )

    @property
    def join_keys(self) -> tuple[Column, ...]:
        """Return the distinct key columns of all views, in order of appearance."""
        return tuple({column.name: column for view in self.all_views for column in view.keys}.values())

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; kinds that a project does not have are left out."""
        data = asdict(self)
        return {name: value for name, value in data.items() if value or name not in {"windows", "sources"}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeaturePlan:
        """Build a plan from what ``as_dict`` returned."""
        return cls(
            project=data["project"],
            views=tuple(_view(item) for item in data["views"]),
            request=columns_from(data["request"]),
            transforms=tuple(Transform.from_dict(item) for item in data["transforms"]),
            services=tuple(
                Service(name=item["name"], features=refs_from(item["features"])) for item in data["services"]
            ),
            windows=tuple(WindowView.from_dict(item) for item in data.get("windows", ())),
            sources=tuple(EventSource.from_dict(item) for item in data.get("sources", ())),
        )


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


_NamedT = TypeVar("_NamedT", bound=_HasName)


def _named(items: tuple[_NamedT, ...], what: str, name: str) -> _NamedT:
    for item in items:
        if item.name == name:
            return item
    known = ", ".join(item.name for item in items) or "none"
    raise DefinitionError(what, "is unknown", value=name, fix=f"use one of those defined: {known}")


def _view(data: Mapping[str, Any]) -> View:
    parts = {
        "keys": columns_from(data["keys"]),
        "features": columns_from(data["features"]),
        "source": Source(**data["source"]),
    }
    return View(**{**data, **parts})
