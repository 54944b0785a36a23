"""The columns of a result do not depend on Python's hash seed; those of Feast's store do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from feast import Field, OnDemandFeatureView
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64

from tests.worlds.feast_offline import TYPES, OfflineWorld, at, key

FEATURES = ["c", "a", "e", "b", "d"]
SEEDS = range(3)
PROGRAM = """
import json, sys, warnings
from pathlib import Path
from tests.worlds.feast_offline import TYPES, OfflineWorld, entity_df
warnings.simplefilter("ignore")
answers = {}
for kind in TYPES:
    store = OfflineWorld(Path(sys.argv[1])).open(kind)
    table = store.get_historical_features(entity_df([1], [1]), ["v:e", "all:total", "v:d"]).to_arrow()
    answers[kind] = table.column_names
print(json.dumps(answers))
"""


def columns(root: Path, seed: int) -> dict[str, list[str]]:
    """Return the columns of each store's answer in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root)],
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        capture_output=True,
        check=True,
        text=True,
    )
    answers: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.soak
def test_columns_are_the_same_under_any_hash_seed(tmp_path: Path) -> None:
    world = OfflineWorld(tmp_path)
    world.write("v.parquet", {"id": [1], "event": at(0), **{name: [1.0] for name in FEATURES}})
    view = world.view(features=dict.fromkeys(FEATURES, Float64))

    def function(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"total": inputs["a"]}

    total = Field(name="total", dtype=Float64)
    made = on_demand_feature_view(name="all", sources=[view], schema=[total], mode="python")(function)
    assert isinstance(made, OnDemandFeatureView)
    world.apply(key(), view, made)
    answers = [columns(tmp_path, seed) for seed in SEEDS]
    ours, feast = ({tuple(answer[kind]) for answer in answers} for kind in TYPES)
    assert ours == {("id", "event_timestamp", "e", "total", "c", "a", "b", "d")}
    assert len(feast) > 1
