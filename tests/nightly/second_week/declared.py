"""The definitions of the second week as plain values: the generator renders them, the oracle computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Value = float | int | str | bool | None
Formula = Literal["ratio", "shift", "missing", "age"]
Kind = Literal["string", "int64", "int32", "float64", "float32", "bool", "timestamp"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """An event source; ``time`` is the column of the event's time, ``id_column`` is empty where a retry counts."""

    name: str
    time: str
    columns: tuple[tuple[str, Kind], ...]
    id_column: str = ""
    scales: tuple[tuple[str, int], ...] = ()

    def kind(self, column: str) -> Kind:
        return dict(self.columns)[column]


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One aggregation; ``hop_s`` is 0 where the hop is that of the window's length.

    Args:
        k: number of values of a sequence of ``first`` or ``last``; 0: one value.
    """

    name: str
    column: str
    function: str
    window_s: int
    hop_s: int = 0
    k: int = 0

    @property
    def features(self) -> list[str]:
        return [f"{self.name}_{place}" for place in range(1, self.k + 1)] if self.k else [self.name]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A windowed view. Its function derives ``big`` (``number > threshold``) and ``net`` (``number * factor - 1.25``).

    Args:
        number: the float column that the function reads; empty: the view has no function.
        where: a bool column of the event, or ``big``; empty: every event counts.
        scale: decimal digits of ``number``; -1: those of the source.
    """

    name: str
    source: Source
    key: str
    aggregates: tuple[Aggregate, ...]
    number: str = ""
    threshold: float = 0.0
    factor: float = 1.0
    where: str = ""
    scale: int = -1


@dataclass(frozen=True, kw_only=True)
class Latest:
    """A latest-value view: features as (name, column of the table)."""

    name: str
    table: str
    key: str
    features: tuple[tuple[str, str], ...]
    ttl_s: int


View = Window | Latest


@dataclass(frozen=True, kw_only=True)
class Transform:
    """A request-time transform with one output, from one feature of a view and the request."""

    name: str
    view: str
    feature: str
    formula: Formula
    number: float
    output: str


@dataclass(frozen=True, kw_only=True)
class Service:
    """What a model sees, by name and in order; the transform ``asked`` comes last in every service."""

    name: str
    views: tuple[str, ...]
    transforms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DeclaredModel:
    """A model and the column that it learns."""

    name: str
    service: str
    label: str
    rounds: int = 4


@dataclass(frozen=True, kw_only=True)
class Declared:
    """All definitions of the project."""

    sources: tuple[Source, ...]
    windows: tuple[Window, ...]
    latest: tuple[Latest, ...]
    transforms: tuple[Transform, ...]
    services: tuple[Service, ...]
    models: tuple[DeclaredModel, ...]

    @property
    def views(self) -> list[View]:
        return [*self.windows, *self.latest]

    def view(self, name: str) -> View:
        return next(view for view in self.views if view.name == name)

    def transform(self, name: str) -> Transform:
        return next(transform for transform in self.transforms if transform.name == name)

    def model(self, name: str) -> DeclaredModel:
        return next(model for model in self.models if model.name == name)

    def service_of(self, model: str) -> Service:
        wanted = self.model(model).service
        return next(service for service in self.services if service.name == wanted)


def feature_names(view: View) -> list[str]:
    """Return the names of a view's features, in the order of the reply."""
    if isinstance(view, Window):
        return [name for aggregate in view.aggregates for name in aggregate.features]
    return [name for name, _ in view.features]


def single_names(view: View) -> list[str]:
    """Return the names of the features that are not a part of a sequence."""
    if isinstance(view, Window):
        return [aggregate.name for aggregate in view.aggregates if not aggregate.k]
    return feature_names(view)
