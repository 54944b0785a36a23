"""A project whose label rows exceed its memory limit: trained, promoted and evaluated as any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.operations.models.versions import plan_promotion
from skewless.operations.models.versions import train as train_model
from skewless.training import stored_dataset
from tests.worlds.trained import MODEL, Sandbox, copy_project, opened


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setattr(stored_dataset, "read_memory_limit", lambda _connection: 100_000)
    with opened(copy_project(trained, tmp_path / "p")) as sandbox:
        yield sandbox


def test_a_project_trains_and_promotes_beyond_memory(place: Sandbox) -> None:
    report = train_model(place.project, MODEL)
    package = report.trained.package
    assert report.dataset.is_stored
    assert (package.about["rows_in"], package.about["as_of_us"]) == ("storage", report.dataset.as_of_us)
    # The champion was trained on the same rows in memory: nothing is better or worse.
    assert report.decision.gain is not None
    assert report.decision.gain.gain == 0.0
    assert report.as_dict()["rows"]["train"] == package.fingerprint["train_rows"]
    memory = place.project.training_set(MODEL)
    assert package.fingerprint["dataset"] == memory.fingerprint
    planned = plan_promotion(place.project, MODEL, package.version)
    assert planned.test_rows in {0, int(memory.test.sum())}
    work = place.project.state / "work"
    assert not work.exists() or not list(work.iterdir())
