"""Resolve a request for online features with Feast's functions, and complete its response after the read."""

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
    """A resolved request.

    Args:
        keys: key columns by the join key's name in the request.
        views: the views to read, each with its requested features.
        join_keys: entity -> join key.
        on_demand: the on-demand views to compute after the read.
        refs: the requested features.
        names: the columns of the final response.
        response: has the keys and request fields; the read adds features.
        full_names: prefix features with the view's name.
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
        """Return a resolved request.

        Raises:
            RequestError: the request has no rows, so its keys are unknown.
            ValueError: the rows have different columns.
            FeastError: a feature is not defined, or a field of the request is missing.
        """
        resolve_alert = utils._prepare_entities_to_read_from_online_store(  # noqa: SLF001 - Feast resolves requests only here
            registry=registry,
            project=project,
            features=features,
            entity_values=_columns(entity_rows),
            full_feature_names=full_names,
            native_entity_values=True,
        )
        keys, views, join_keys, on_demand, refs, names, response = resolve_alert
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

    def build_response(self, types: dict[str, ValueType]) -> OnlineResponse:
        """Return the response with on-demand features; call it once, after all views were read.

        Args:
            types: Feast's type of each feature, by short and by full name.
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
            "entity_rows", "has no row", fix="give at least one row, or columns: {join key: []} gives an empty response"
        )
    columns: dict[str, list[Any]] = {name: [] for name in rows[0]}
    for row in rows:
        if row.keys() != columns.keys():
            raise ValueError("All entity_rows must have the same keys.")
        for name, value in row.items():
            columns[name].append(value)
    return columns
