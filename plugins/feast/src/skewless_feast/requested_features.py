"""Resolve the feature references of a historical request to views and result columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feast import OnDemandFeatureView

from skewless.contract.errors import RequestError
from skewless_feast.stored_views import is_windowed

Table = Any  # FeatureView, StreamFeatureView or BatchFeatureView: they have no common type in Feast


@dataclass(frozen=True, kw_only=True)
class RequestedView:
    """One view of a request.

    Args:
        view: the view, with the projection of the request.
        labels: feature -> its column in the result.
    """

    view: Table
    labels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class RequestedFeatures:
    """The features of a request.

    Args:
        views: all views to read, in the order of the request.
        order: all feature columns of the result, including those of on-demand views.
    """

    views: tuple[RequestedView, ...]
    order: tuple[str, ...]


def resolve_features(
    refs: Sequence[str],
    views: Sequence[Table],
    on_demand: Sequence[OnDemandFeatureView],
    *,
    full_names: bool,
) -> RequestedFeatures:
    """Return the views and columns of a request's feature references.

    The columns of the result follow the request. The inputs of on-demand views, which Feast appends, come last in the
    order of their views: Feast passes them in an order that depends on the hash seed. It does not pass how many it
    appends, so inputs at the end of the request are among them.

    Raises:
        RequestError: a reference names an unknown view, or two features have one name.
    """
    named = {_name(view.projection): view for view in (*views, *on_demand)}
    pairs = [_resolve_ref(ref, named) for ref in refs]
    count = _count_user_pairs(pairs, on_demand)
    # A feature that is requested and also an input is one column, at the place of the request.
    pairs = list(dict.fromkeys([*pairs[:count], *_sort_as_declared(pairs[count:], views)]))
    prefixes = _prefixes([name for name, _ in pairs], named)
    labels = {pair: f"{prefixes[pair[0]]}__{pair[1]}" if full_names else pair[1] for pair in pairs}
    order = tuple(labels.values())
    for label in order:
        if order.count(label) > 1:
            raise RequestError(
                "feature", "is requested from two views under one name", value=label, fix="pass full_feature_names=True"
            )
    stored = {_name(view.projection): view for view in views}
    return RequestedFeatures(
        views=tuple(
            RequestedView(
                view=stored[name], labels={pair[1]: label for pair, label in labels.items() if pair[0] == name}
            )
            for name in dict.fromkeys(name for name, _ in pairs)
            if name in stored
        ),
        order=order,
    )


def _resolve_ref(ref: str, named: Mapping[str, Table]) -> tuple[str, str]:
    name, _, feature = ref.partition(":")
    view, _, version = name.partition("@")
    for candidate in (name, f"{view}@{version.lower()}", *([view] if version.lower() == "latest" else [])):
        if candidate in named:
            return candidate, feature
    raise RequestError("feature", "names an unknown view", value=ref, fix=f"use one of {', '.join(named)}")


def _name(projection: Any) -> str:  # noqa: ANN401 - untyped in Feast
    """Return the name under which a request refers to a view."""
    return str(projection.name_to_use())


def _count_user_pairs(pairs: Sequence[tuple[str, str]], on_demand: Sequence[OnDemandFeatureView]) -> int:
    """Return the number of references up to the last one that is not an input of an on-demand view."""
    inputs = {
        (_name(projection), field.name)
        for view in on_demand
        for projection in view.source_feature_view_projections.values()
        for field in projection.features
    }
    return max((i + 1 for i, pair in enumerate(pairs) if pair not in inputs), default=0)


def _sort_as_declared(pairs: Sequence[tuple[str, str]], views: Sequence[Table]) -> list[tuple[str, str]]:
    """Return features in the order of their views' declarations."""
    declared: list[tuple[str, str]] = []
    for view in views:
        names = [field.name for field in view.features]
        # Feast orders the features of a windowed view randomly.
        declared += [(_name(view.projection), name) for name in (sorted(names) if is_windowed(view) else names)]
    return sorted(pairs, key=lambda pair: declared.index(pair) if pair in declared else len(declared))


def _prefixes(names: Sequence[str], named: Mapping[str, Table]) -> dict[str, str]:
    """Return the prefix of full feature names per view: without the version, unless two versions are requested."""
    plain = {name: str(named[name].projection.name_alias or named[name].projection.name) for name in names}
    shared = list(plain.values())
    return {name: prefix if shared.count(prefix) == 1 else name for name, prefix in plain.items()}
