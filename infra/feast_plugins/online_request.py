"""A request for online features: what Feast makes of it before the store is read, and of the response afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feast import FeatureService, utils
from feast.infra.registry.base_registry import BaseRegistry
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType

from skewless.contract.errors import RequestError
from skewless.infra.feast_plugins.stored_views import Table

EntityRows = list[dict[str, Any]] | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class OnlineRequest:
    """A request, resolved.

    Args:
        keys: the request's key columns, by join key as the request calls it.
        views: the views to be read, each with the features wanted of it.
        join_keys: entity -> join key.
        on_demand: the views to be computed afterwards.
        refs: the features asked for.
        names: the columns that the response may keep.
        response: filled by whoever reads; holds the keys and the request's own fields.
        full_names: write the view's name before those of its features.
    """

    keys: Mapping[str, Sequence[Value]]
    views: Sequence[tuple[Table, list[str]]]
    join_keys: Mapping[str, str]
    on_demand: Sequence[Any]
    refs: Sequence[str]
    names: frozenset[str]
    response: GetOnlineFeaturesResponse
    full_names: bool

    @classmethod
    def resolve(
        cls,
        registry: BaseRegistry,
        project: str,
        features: list[str] | FeatureService,
        entity_rows: EntityRows,
        *,
        full_names: bool,
    ) -> OnlineRequest:
        """Return what a request is about.

        Raises:
            RequestError: there is no row, so nothing says which keys there are.
            ValueError: the rows differ in their columns.
            FeastError: a feature is not defined, or a field of the request is missing.
        """
        found = utils._prepare_entities_to_read_from_online_store(  # noqa: SLF001 - the one place where Feast resolves
            registry=registry,
            project=project,
            features=features,
            entity_values=_columns(entity_rows),
            full_feature_names=full_names,
            native_entity_values=True,
        )
        keys, views, join_keys, on_demand, refs, names, response = found
        return cls(
            keys=keys,
            views=views,
            join_keys=join_keys,
            on_demand=on_demand,
            refs=refs,
            names=frozenset(names),
            response=response,
            full_names=full_names,
        )

    def answer(self, types: dict[str, ValueType]) -> OnlineResponse:
        """Return the response, its on-demand features computed; call it once, after everything was read.

        Args:
            types: Feast's type of each feature that was read, by short and by full name.
        """
        if self.on_demand:
            utils._augment_response_with_on_demand_transforms(  # noqa: SLF001 - as above
                self.response, list(self.refs), list(self.on_demand), self.full_names, feature_types=types
            )
        utils._drop_unneeded_columns(self.response, set(self.names))  # noqa: SLF001 - as above
        return OnlineResponse(self.response, feature_types=types)


def _columns(rows: EntityRows) -> Mapping[str, Any]:
    if not isinstance(rows, list):
        return rows
    if not rows:
        raise RequestError(
            "entity_rows", "has no row", fix="give at least one, or a table of columns: {join key: []} asks for nothing"
        )
    columns: dict[str, list[Any]] = {name: [] for name in rows[0]}
    for row in rows:
        if row.keys() != columns.keys():
            raise ValueError("All entity_rows must have the same keys.")
        for name, value in row.items():
            columns[name].append(value)
    return columns
