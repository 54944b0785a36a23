"""The parts inside Feast that our stores rely on, which Feast does not promise: a new Feast is tried here first."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from feast import FeatureStore
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.passthrough_provider import PassthroughProvider
from feast.type_map import python_values_to_proto_values
from feast.utils import compute_non_entity_date_range

from skewless_feast.engine import SkewlessComputeEngine
from skewless_feast.feature_store import SkewlessFeatureStore
from skewless_feast.online_store import SkewlessOnlineStore
from skewless_feast.provider import SkewlessProvider
from skewless_feast.results import PointInTimeJob, QueryJob
from skewless_feast.retrieval import SkewlessRetrievalJob

# Private methods that Feast calls on its own stores, and that ours override. No other private part is used.
PRIVATE = {
    (OnlineStore, SkewlessOnlineStore): {
        "_read_features_per_fv": [
            "config",
            "grouped_refs",
            "join_key_values",
            "entity_name_to_join_key_map",
            "online_features_response",
            "full_feature_names",
            "include_feature_view_version_metadata",
        ],
        "_is_versioned_read_supported": [],
    },
    (ComputeEngine, SkewlessComputeEngine): {"_materialize_one": ["registry", "task", "kwargs"]},
    (RetrievalJob, PointInTimeJob): {"_to_arrow_internal": ["timeout"]},
    (RetrievalJob, QueryJob): {"_to_arrow_internal": ["timeout"]},
    (RetrievalJob, SkewlessRetrievalJob): {},
    (FeatureStore, SkewlessFeatureStore): {},
    (PassthroughProvider, SkewlessProvider): {},
}
# Public functions of modules that Feast's documentation does not name.
FUNCTIONS: dict[Callable[..., Any], list[str]] = {
    compute_versioned_name: ["table", "enable_versioning"],
    compute_non_entity_date_range: ["feature_views", "start_date", "end_date", "default_window_days"],
    python_values_to_proto_values: ["values", "feature_type"],
    LocalComputeEngine.materialize: ["self", "registry", "tasks", "lineage_parent", "kwargs"],
    FeatureStore.push: ["self", "push_source_name", "df", "allow_registry_cache", "to", "transform_on_write"],
    FeatureStore.push_async: ["self", "push_source_name", "df", "allow_registry_cache", "to", "kwargs"],
}


@pytest.mark.parametrize("pair", PRIVATE, ids=lambda pair: pair[1].__name__)
def test_overridden_private_methods_have_feasts_parameters(pair: tuple[type, type]) -> None:
    feasts, ours = pair
    overridden = {
        name
        for name, member in vars(ours).items()
        if name.startswith("_") and not name.startswith("__") and inspect.isfunction(member) and hasattr(feasts, name)
    }
    assert overridden == set(PRIVATE[pair])
    for name, parameters in PRIVATE[pair].items():
        for owner in (feasts, ours):
            assert list(inspect.signature(getattr(owner, name)).parameters) == ["self", *parameters]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__qualname__)
def test_functions_have_known_parameters(function: Callable[..., Any]) -> None:
    assert list(inspect.signature(function).parameters) == FUNCTIONS[function]


def test_feast_reads_online_through_the_hook() -> None:
    source = inspect.getsource(OnlineStore.get_online_features)
    assert "self._read_features_per_fv(" in source
    assert "self._check_versioned_read_support(" in source
