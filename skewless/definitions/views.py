"""Feature views of latest values, fields that a caller sends, and features that are computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import FunctionType
from typing import cast

from feast import Entity, FeatureView, Field, OnDemandFeatureView, RequestSource
from feast.feature_view_projection import FeatureViewProjection

from skewless.definitions.tag_arguments import (
    BatchSource,
    ColumnFunction,
    all_tags,
    duration_tags,
    named_arguments,
    text_tags,
)
from skewless.infra.definitions.compiler.services import (
    TAG_PREDICTION_TIME,
    compile_transform,
    find_time_field,
    module_source,
)
from skewless.infra.definitions.compiler.views import TAG_DELAY, TAG_FRESHNESS, TAG_MAX_AGE, TAG_TOMBSTONE, compile_view


def feature_view(
    name: str,
    *,
    entities: Sequence[Entity],
    schema: Sequence[Field],
    source: BatchSource,
    ttl: timedelta = timedelta(0),
    delay: timedelta | None = None,
    freshness: timedelta | None = None,
    max_age: timedelta | None = None,
    tombstone: str | None = None,
    description: str = "",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> FeatureView:
    """Return a Feast ``FeatureView``: the latest values of an entity from a table.

    Args:
        name: of the view.
        entities: whose join keys together are its key.
        schema: keys and features with their types.
        source: the table.
        ttl: age from which a row is expired; 0: never.
        delay: how long after its event time a row is published, where the table has no created time; None: at once.
        freshness: age from which a value is flagged ``stale``, and still used; None: never.
        max_age: time without a run from which the view is unavailable; None: never.
        tombstone: boolean column of the table; true means that the row is deleted.
        description: for people.
        owner: for people.
        tags: further tags of your own.

    Raises:
        DefinitionError: an argument is wrong, or the view cannot be served exactly.
    """
    thing = f"feature view {name!r}"
    with named_arguments():
        lengths = {TAG_DELAY: delay, TAG_FRESHNESS: freshness, TAG_MAX_AGE: max_age}
        own = duration_tags(thing, lengths) | text_tags({TAG_TOMBSTONE: tombstone})
        view = FeatureView(
            name=name,
            entities=list(entities),
            schema=list(schema),
            source=source,
            ttl=ttl,
            description=description,
            owner=owner,
            tags=all_tags(thing, tags, own),
        )
        compile_view(view, {entity.name: entity for entity in entities})
    return view


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
