"""Feature views of latest values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from feast import Entity, FeatureView, Field

from skewless.definitions.tag_arguments import BatchSource, all_tags, duration_tags, named_arguments, text_tags
from skewless.infra.compiler.views import TAG_DELAY, TAG_FRESHNESS, TAG_MAX_AGE, TAG_TOMBSTONE, compile_view


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
