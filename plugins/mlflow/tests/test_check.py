"""The check of each run of `make test`: one trained version lands in a local store."""

from __future__ import annotations

import shutil
from pathlib import Path

from mlflow import MlflowClient

from skewless.project import Project
from skewless_mlflow.publishing import open_tracker, publish
from tests.worlds.trained import MODEL, Sandbox

URI = "sqlite:///mlflow.db"


def test_a_trained_version_becomes_a_run_with_the_champion_s_alias(place: Sandbox, mlflow_store: Path) -> None:
    shutil.copy(mlflow_store, place.repo / "mlflow.db")
    project = Project(place.repo, clock=f"file:{place.repo}/.skewless/clock", threads=1, tracking_uri=URI)
    place.opened.append(project.close)
    (report,) = publish(project, open_tracker(project))
    assert report.published == ["000001"]
    client = MlflowClient(tracking_uri=f"sqlite:///{place.repo}/mlflow.db")
    champion = client.get_model_version_by_alias(f"{place.model.plan.project}.{MODEL}", "champion")
    assert client.get_run(str(champion.run_id)).info.status == "FINISHED"
