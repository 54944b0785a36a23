"""On-demand views in each mode, online and offline, at the request and at the write; logs and saved datasets."""

from __future__ import annotations

from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureService, Field, OnDemandFeatureView, RequestSource
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64

from plugins.feast.tests.conformance.test_views import table_frame
from tests.worlds.feast_conformance import NOW, ConformanceProject, ago, asked, table_of
from tests.worlds.feast_repo import USER, users_of

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.* is an experimental feature:RuntimeWarning"
)
FACTOR = RequestSource(name="asked", schema=[Field(name="factor", dtype=Float64)])


# Feast keeps the text of a function, where the names of types mean nothing, and marks the function as its own.
def scaled_frames() -> Any:  # noqa: ANN401 - a function
    def scaled(inputs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        import pandas as pd  # noqa: PLC0415 - as above

        return pd.DataFrame({"scaled": inputs["x"] * inputs["factor"]})

    return scaled


def scaled_lists() -> Any:  # noqa: ANN401 - a function
    def scaled(inputs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return {"scaled": [None if x is None else x * f for x, f in zip(inputs["x"], inputs["factor"], strict=True)]}

    return scaled


def scaled_one() -> Any:  # noqa: ANN401 - a function
    def scaled(inputs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return {"scaled": None if inputs["x"] is None else inputs["x"] * inputs["factor"]}

    return scaled


MODES: dict[str, tuple[Any, dict[str, Any]]] = {
    "pandas": (scaled_frames, {"mode": "pandas"}),
    "python": (scaled_lists, {"mode": "python"}),
    "python, one row": (scaled_one, {"mode": "python", "singleton": True}),
}


@pytest.mark.parametrize("name", MODES)
def test_each_mode_online_and_offline(feast_project: ConformanceProject, name: str) -> None:
    function, options = MODES[name]
    feast_project.write("v.parquet", table_of([1, 2], x=[1.5, 2.0]))
    view = feast_project.pushed("v")
    decorate = on_demand_feature_view(
        name="scaled", sources=[view, FACTOR], schema=[Field(name="scaled", dtype=Float64)], **options
    )
    feast_project.apply(view, cast("OnDemandFeatureView", decorate(function())))
    feast_project.store.materialize(ago(days=1), ago())
    rows = [{"user_id": 1, "factor": 2.0}, {"user_id": 2, "factor": -1.0}]
    answers = [feast_project.online(["scaled:scaled", "v:x"], [row]) for row in rows]
    assert [(answer["scaled"], answer["x"]) for answer in answers] == [([3.0], [1.5]), ([-2.0], [2.0])]
    if "singleton" not in options:  # Feast computes neither requests of more rows nor a history one row at a time
        answer = feast_project.online(["scaled:scaled", "v:x"], rows)
        assert (answer["scaled"], answer["x"]) == ([3.0, -2.0], [1.5, 2.0])
        found = feast_project.offline(["scaled:scaled", "v:x"], asked(1, 2, factor=[2.0, -1.0]))
        assert found["scaled"].to_pylist() == answer["scaled"]


@pytest.mark.parametrize("mode", ["pandas", "python"])
def test_a_transform_at_the_write(feast_project: ConformanceProject, mode: str) -> None:
    def half_lists(inputs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return {"half": [value / 2 for value in inputs["x"]]}

    def half_frames(inputs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        import pandas as pd  # noqa: PLC0415 - as above

        return pd.DataFrame({"half": inputs["x"] / 2})

    feast_project.write("v.parquet", table_of([1], x=[9.0]))
    view = feast_project.pushed("v")
    decorate = on_demand_feature_view(
        name="half",
        entities=[USER],
        sources=[view],
        schema=[Field(name="half", dtype=Float64)],
        mode=mode,
        write_to_online_store=True,
    )
    feast_project.apply(view, cast("OnDemandFeatureView", decorate(half_lists if mode == "python" else half_frames)))
    feast_project.store.write_to_online_store("half", pd.DataFrame({**table_frame([1]), "x": [3.0]}))
    assert feast_project.online(["half:half"], users_of(1))["half"] == [1.5]


def test_logs_of_a_service_come_back(feast_project: ConformanceProject) -> None:
    feast_project.write("v.parquet", table_of([1], x=[1.0]))
    view = feast_project.pushed("v")
    logging = LoggingConfig(destination=FileLoggingDestination(path=str(feast_project.root / "logs")))
    service = FeatureService(name="s", features=[view], logging_config=logging)
    feast_project.apply(view, service)
    stamp = pa.timestamp("us", tz="UTC")
    logs = pa.table(
        {
            "user_id": pa.array([1], pa.int64()),
            "v__x": pa.array([1.0]),
            "v__x__timestamp": pa.array([ago()], stamp),
            "v__x__status": pa.array([1], pa.int32()),
            "__log_timestamp": pa.array([ago()], stamp),
            "__log_date": pa.array([ago().date()]),
            "__request_id": ["r"],
        }
    )
    for _ in range(2):
        feast_project.store.write_logged_features(logs, service)
    provider: Any = feast_project.store._get_provider()
    config, registry = feast_project.store.config, feast_project.store.registry
    found = provider.retrieve_feature_service_logs(service, ago(hours=1), NOW, config, registry).to_arrow()
    assert found["v__x"].to_pylist() == [1.0, 1.0]


def test_a_saved_dataset_with_on_demand_features_comes_back(feast_project: ConformanceProject) -> None:
    feast_project.write("v.parquet", table_of([1, 2], x=[1.5, 2.0]))
    view = feast_project.pushed("v")
    decorate = on_demand_feature_view(
        name="scaled", sources=[view, FACTOR], schema=[Field(name="scaled", dtype=Float64)], mode="python"
    )
    feast_project.apply(view, cast("OnDemandFeatureView", decorate(scaled_lists())))
    job = feast_project.store.get_historical_features(asked(1, 2, factor=[2.0, 3.0]), ["scaled:scaled", "v:x"])
    storage = SavedDatasetFileStorage(path=str(feast_project.root / "saved.parquet"))
    feast_project.store.create_saved_dataset(job, "mine", storage)
    found = feast_project.store.get_saved_dataset("mine").to_df().sort_values("user_id")
    assert found["scaled"].tolist() == [3.0, 6.0]
