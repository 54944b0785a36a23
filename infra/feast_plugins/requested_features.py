"""Which features a request asks for, of which views, and how the answer's columns are named and ordered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feast import OnDemandFeatureView
from feast.utils import _parse_feature_ref

from skewless.contract.errors import RequestError
from skewless.infra.feast_plugins.windowed_views import is_windowed

Table = Any  # FeatureView, StreamFeatureView or BatchFeatureView: Feast gives them no common type


@dataclass(frozen=True, kw_only=True)
class RequestedView:
    """One view of a request.

    Args:
        view: with the projection that the request uses.
        labels: feature -> its column in the answer.
    """

    view: Table
    labels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class RequestedFeatures:
    """A request's features.

    Args:
        views: every view that is read, in the order of the request.
        order: the answer's feature columns, those of on-demand views too.
    """

    views: tuple[RequestedView, ...]
    order: tuple[str, ...]


def asked_features(
    refs: Sequence[str],
    views: Sequence[Table],
    on_demand: Sequence[OnDemandFeatureView],
    *,
    full_names: bool,
    count: int | None = None,
) -> RequestedFeatures:
    """Return what the references of a request ask for.

    The columns of the answer follow the request. What Feast adds to it, the inputs of on-demand views, comes
    last and as the views declare it: Feast passes these in an order that changes with the hash seed.

    Args:
        count: how many of the first references are the user's own; None: all but inputs at the end.

    Raises:
        RequestError: a reference names no view, or two features would get one name.
    """
    named = {_name(view.projection): view for view in (*views, *on_demand)}
    pairs = [_pair(ref, named) for ref in refs]
    if count is None:
        count = _count(pairs, on_demand)
    pairs = list(dict.fromkeys([*pairs[:count], *_as_declared(pairs[count:], views)]))
    prefixes = _prefixes([name for name, _ in pairs], named)
    labels = {pair: f"{prefixes[pair[0]]}__{pair[1]}" if full_names else pair[1] for pair in pairs}
    order = tuple(labels.values())
    for label in order:
        if order.count(label) > 1:
            raise RequestError(
                "feature", "is asked of two views under one name", value=label, fix="pass full_feature_names=True"
            )
    stored = {_name(view.projection): view for view in views}
    return RequestedFeatures(
        views=tuple(
            RequestedView(view=stored[name], labels={feature: labels[name, feature] for feature in features})
            for name, features in _grouped(pairs).items()
            if name in stored
        ),
        order=order,
    )


def _pair(ref: str, named: Mapping[str, Table]) -> tuple[str, str]:
    name, version, feature = _parse_feature_ref(ref)
    used = name if version is None else f"{name}@v{version}"
    if used not in named:
        raise RequestError("feature", "names a view that is unknown", value=ref, fix=f"use one of {', '.join(named)}")
    return used, feature


def _name(projection: Any) -> str:  # noqa: ANN401 - untyped in Feast
    """Return the name under which a request refers to a view."""
    return str(projection.name_to_use())


def _count(pairs: Sequence[tuple[str, str]], on_demand: Sequence[OnDemandFeatureView]) -> int:
    """Return how many references there are up to the last one that is no input of an on-demand view."""
    inputs = {
        (_name(projection), field.name)
        for view in on_demand
        for projection in view.source_feature_view_projections.values()
        for field in projection.features
    }
    return max((i + 1 for i, pair in enumerate(pairs) if pair not in inputs), default=0)


def _as_declared(pairs: Sequence[tuple[str, str]], views: Sequence[Table]) -> list[tuple[str, str]]:
    declared = [(_name(view.projection), name) for view in views for name in _declared(view)]
    return sorted(pairs, key=lambda pair: declared.index(pair) if pair in declared else len(declared))


def _declared(view: Table) -> list[str]:
    """Return the features of a view in an order that is always the same: that of a windowed view is left to chance."""
    names = [field.name for field in view.features]
    return sorted(names) if is_windowed(view) else names


def _prefixes(names: Sequence[str], named: Mapping[str, Table]) -> dict[str, str]:
    """Return what stands before the feature in a full name: without the version, unless two are asked for."""
    plain = {name: str(named[name].projection.name_alias or named[name].projection.name) for name in names}
    shared = list(plain.values())
    return {name: prefix if shared.count(prefix) == 1 else name for name, prefix in plain.items()}


def _grouped(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, feature in pairs:
        grouped.setdefault(name, []).append(feature)
    return grouped
