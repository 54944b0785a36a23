"""What every tracker does: publishing is whole or repeated, and aliases point at what is published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from plugins.mlflow.tests.memory_tracker import MemoryTracker
from skewless.contract.errors import DefinitionError, StoreError
from skewless_mlflow.tracked_run import TrackedRun, Tracker
from skewless_mlflow.tracker import DIGEST, MLflowTracker

Open = Callable[[], Tracker]
NOON = 1_768_478_400_000_000


@pytest.fixture(params=["memory", "mlflow"])
def open_tracker(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Open the one tracker again and again, as processes do."""
    memory = MemoryTracker()
    if request.param == "memory":
        return lambda: memory
    shutil.copy(request.getfixturevalue("mlflow_store"), tmp_path / "mlflow.db")
    return lambda: MLflowTracker("sqlite:///mlflow.db", tmp_path, "shop")


def run(tmp_path: Path, digest: str, version: str = "000001", model: str = "fraud") -> TrackedRun:
    folder = tmp_path / model / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"version": version}))
    return TrackedRun(
        model=model,
        version=version,
        digest=digest,
        trained_us=NOON,
        params={"rounds": "20"} | {f"params.p{i}": str(i) for i in range(120)},
        metrics={"auc": 0.75, "log_loss": 0.5},
        tags={"skewless.plan": "abc"},
        package=folder,
        documents={"plots/roc.svg": "<svg/>"},
    )


def test_what_was_published_is_known_in_a_new_process(open_tracker: Open, tmp_path: Path) -> None:
    assert open_tracker().published_digests("fraud") == frozenset()
    open_tracker().publish(run(tmp_path, "d1"))
    open_tracker().publish(run(tmp_path, "d2", "000002"))
    assert open_tracker().published_digests("fraud") == {"d1", "d2"}
    assert open_tracker().published_digests("other") == frozenset()


def test_publishing_twice_changes_nothing(open_tracker: Open, tmp_path: Path) -> None:
    for _ in range(2):
        open_tracker().publish(run(tmp_path, "d1"))
    assert open_tracker().published_digests("fraud") == {"d1"}


def test_an_alias_points_at_a_published_version_and_moves(open_tracker: Open, tmp_path: Path) -> None:
    tracker = open_tracker()
    assert tracker.aliases("fraud") == {}
    for digest, version in (("d1", "000001"), ("d2", "000002")):
        tracker.publish(run(tmp_path, digest, version))
        tracker.point("fraud", "champion", digest)
        assert open_tracker().aliases("fraud") == {"champion": digest}
    tracker.point("fraud", "challenger", "d1")
    assert tracker.aliases("fraud") == {"champion": "d2", "challenger": "d1"}
    tracker.point("fraud", "challenger", None)
    assert tracker.aliases("fraud") == {"champion": "d2"}


def test_an_alias_of_nothing_published_is_refused(open_tracker: Open, tmp_path: Path) -> None:
    tracker = open_tracker()
    tracker.publish(run(tmp_path, "d1"))
    with pytest.raises(StoreError, match="no such version"):
        tracker.point("fraud", "champion", "d9")
    assert tracker.aliases("fraud") == {}


def test_models_of_two_names_do_not_meet(open_tracker: Open, tmp_path: Path) -> None:
    tracker = open_tracker()
    tracker.publish(run(tmp_path, "d1"))
    tracker.publish(run(tmp_path, "e1", model="delay"))
    tracker.point("delay", "champion", "e1")
    assert [sorted(tracker.published_digests(model)) for model in ("fraud", "delay")] == [["d1"], ["e1"]]
    assert tracker.aliases("fraud") == {}


def client(tmp_path: Path) -> MlflowClient:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def runs(seen: MlflowClient) -> list[Run]:
    experiment = seen.get_experiment_by_name("shop")
    assert experiment is not None
    return list(seen.search_runs([experiment.experiment_id]))


def test_mlflow_itself_shows_run_model_version_alias_and_files(mlflow_store: Path, tmp_path: Path) -> None:
    shutil.copy(mlflow_store, tmp_path / "mlflow.db")
    tracker = MLflowTracker("sqlite:///mlflow.db", tmp_path, "shop")
    tracker.publish(run(tmp_path, "d1"))
    tracker.point("fraud", "champion", "d1")
    seen = client(tmp_path)
    (found,) = runs(seen)
    assert found.info.run_name == "fraud 000001"
    assert (found.info.status, found.info.start_time) == ("FINISHED", NOON // 1_000)
    assert found.data.metrics == {"auc": 0.75, "log_loss": 0.5}
    assert len(found.data.params) == 121
    assert found.data.params["rounds"] == "20"
    assert found.data.tags[DIGEST] == "d1"
    version = seen.get_model_version_by_alias("shop.fraud", "champion")
    assert version.run_id == found.info.run_id
    assert version.tags["skewless.version"] == "000001"
    files = [item.path for folder in ("package", "plots") for item in seen.list_artifacts(found.info.run_id, folder)]
    assert files == ["package/manifest.json", "plots/roc.svg"]
    assert version.source == f"{found.info.artifact_uri}/package"


@pytest.mark.parametrize(
    "last",
    [
        "create_run",
        *(pytest.param(each, marks=pytest.mark.soak) for each in ("log_batch", "log_artifacts")),
        "create_model_version",
    ],
)
def test_a_run_that_was_cut_short_is_finished_by_the_next_attempt(
    last: str, mlflow_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(mlflow_store, tmp_path / "mlflow.db")
    tracker = MLflowTracker("sqlite:///mlflow.db", tmp_path, "shop")
    real = getattr(MlflowClient, last)

    def cut(*args: object, **kwargs: object) -> None:
        real(*args, **kwargs)
        raise OSError("gone")

    monkeypatch.setattr(MlflowClient, last, cut)
    with pytest.raises(StoreError, match="gone"):
        tracker.publish(run(tmp_path, "d1"))
    monkeypatch.undo()
    assert tracker.published_digests("fraud") == frozenset()
    tracker.publish(run(tmp_path, "d1"))
    seen = client(tmp_path)
    assert len(runs(seen)) == 1
    assert len(seen.search_model_versions("name = 'shop.fraud'")) == 1
    assert tracker.published_digests("fraud") == {"d1"}


def test_a_server_that_is_away_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not answer"):
        MLflowTracker("http://127.0.0.1:1", tmp_path, "shop")


@pytest.mark.parametrize("uri", ["mlruns", "sqlite:///", "ftp://x", "postgresql://x/y"])
def test_what_is_no_address_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="tracking_uri"):
        MLflowTracker(uri, tmp_path, "shop")


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database at all, whatever its name says" * 40)
    with pytest.raises(StoreError, match="refuses"):
        MLflowTracker("sqlite:///mlflow.db", tmp_path, "shop")
