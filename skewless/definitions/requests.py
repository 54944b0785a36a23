"""Requests: the fields that a caller sends, and features that are computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import cast

from feast import FeatureView, Field, OnDemandFeatureView, RequestSource
from feast.feature_view_projection import FeatureViewProjection

from skewless.definitions.tag_arguments import ColumnFunction, all_tags, named_arguments, text_tags
from skewless.infra.compiler.services import TAG_PREDICTION_TIME, compile_transform, find_time_field, module_source


def request_source(
    name: str,
    *,
    schema: Sequence[Field],
    prediction_time: str | None = None,
    description: str = "",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> RequestSource:
    """Return a Feast ``RequestSource``: the fields that a caller sends with a request.

    Args:
        name: of the source.
        schema: the fields with their types.
        prediction_time: field of type UnixTimestamp that skewless sets to the time of the prediction; None: no field.
        description: for people.
        owner: for people.
        tags: further tags of your own.

    Raises:
        DefinitionError: an argument is wrong.
    """
    with named_arguments():
        own = all_tags(f"request source {name!r}", tags, text_tags({TAG_PREDICTION_TIME: prediction_time}))
        source = RequestSource(name=name, schema=list(schema), description=description, owner=owner, tags=own)
        find_time_field(source)
    return source


def on_demand_view(
    name: str,
    *,
    sources: Sequence[FeatureView | FeatureViewProjection | RequestSource],
    schema: Sequence[Field],
    transform: ColumnFunction,
    description: str = "",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> OnDemandFeatureView:
    """Return a Feast ``OnDemandFeatureView``: features that a numpy function computes for each request.

    Args:
        name: of the view.
        sources: views and request sources whose fields the function reads.
        schema: the features that it returns, with their types.
        transform: function of a module that imports numpy only.
        description: for people.
        owner: for people.
        tags: further tags of your own.

    Raises:
        DefinitionError: an argument is wrong.
    """
    thing = f"on-demand feature view {name!r}"
    with named_arguments():
        view = OnDemandFeatureView(
            name=name,
            sources=list(sources),
            schema=list(schema),
            mode="python",
            udf=cast("FunctionType", transform),
            # The whole module: Feast runs this text again, and the function may call others.
            udf_string=module_source(thing, transform),
            description=description,
            owner=owner,
            tags=all_tags(thing, tags, {}),
        )
        compile_transform(view)
    return view
