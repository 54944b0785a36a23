"""Answer requests for online features: Feast's functions resolve the request and complete the response."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
RequestedTable = tuple[Table, list[str], Mapping[str, Sequence[Value]]]
"""A view to read, its requested features, and its key columns by the view's names of its join keys."""


def answer_request(
    registry: BaseRegistry,
    project: str,
    features: list[str] | FeatureService,
    entity_rows: EntityRows,
    read: Callable[[GetOnlineFeaturesResponse, Sequence[RequestedTable]], dict[str, ValueType]],
    *,
    full_names: bool,
) -> OnlineResponse:
    """Return the response to a request, with on-demand features.

    Args:
        read: adds the features of all views to a response that has the keys and request fields; returns Feast's type
            of each feature, by short and by full name.
        full_names: prefix features with the view's name.

    Raises:
        RequestError: the request has no rows, so its keys are unknown.
        ValueError: the rows have different columns.
        FeastError: a feature is not defined, or a field of the request is missing.
    """
    resolved = utils._prepare_entities_to_read_from_online_store(  # noqa: SLF001 - Feast resolves requests only here
        registry=registry,
        project=project,
        features=features,
        entity_values=_columns(entity_rows),
        full_feature_names=full_names,
        native_entity_values=True,
    )
    keys, views, join_keys, on_demand, refs, names, response = resolved
    types = read(response, [(table, wanted, _table_keys(table, keys, join_keys)) for table, wanted in views])
    if on_demand:
        utils._augment_response_with_on_demand_transforms(  # noqa: SLF001 - as above
            response, list(refs), list(on_demand), full_names, feature_types=types
        )
    utils._drop_unneeded_columns(response, set(names))  # noqa: SLF001 - as above
    return OnlineResponse(response, feature_types=types)


def _table_keys(
    table: Table, values: Mapping[str, Sequence[Value]], join_keys: Mapping[str, str]
) -> dict[str, Sequence[Value]]:
    """Return a view's key columns from the key columns of a request, which may use names of a projection.

    Args:
        values: name of the join key in the request -> its values.
        join_keys: entity -> join key.
    """
    own = [str(column.name) for column in table.entity_columns] or [join_keys[name] for name in table.entities]
    requested = {name: table.projection.join_key_map.get(name, name) for name in own}
    return {name: values[alias] for name, alias in requested.items() if alias in values}


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
