"""Global importance over time against the library's own contributions of the logged vectors."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pyarrow.parquet as pq
import pytest

from skewless_control_room.importance import ImportanceReport, WindowImportance, importance
from tests.worlds.command_line import run
from tests.worlds.trained import MODEL, SECOND, Sandbox, ask

HOUR = 3_600 * SECOND


def logged(place: Sandbox) -> list[dict[str, Any]]:
    return [row for path in place.log_files() for row in pq.read_table(path).to_pylist()]


def report(place: Sandbox, **options: int) -> ImportanceReport:
    return importance(place.project, MODEL, window_us=HOUR, windows=4, **options)


def expected(place: Sandbox, part: WindowImportance) -> dict[str, float]:
    """Return the mean of what the library says of all predictions of a window."""
    vectors = [
        row["vector"]
        for row in logged(place)
        if part.since_us <= row["t"] < part.until_us and row["version"] == part.version
    ]
    package = place.load(part.version).package
    booster = lightgbm.Booster(model_file=str(package.model_file))
    found = np.asarray(booster.predict(np.array(vectors), pred_contrib=True))[:, :-1]
    return dict(zip(place.model.assembler.labels, np.abs(found).mean(axis=0).tolist(), strict=True))


def test_each_window_and_version_has_the_mean_of_its_contributions(place: Sandbox) -> None:
    place.train()
    place.predict(ask(30))
    place.wait(2 * 3_600)
    place.predict(ask(20, first=30))
    place.predict(ask(10), model=place.load("000002"))
    found = report(place)
    assert [(part.version, part.predictions, part.sampled) for part in found.windows] == [
        ("000001", 30, 30),
        ("000001", 20, 20),
        ("000002", 10, 10),
    ]
    for part in found.windows:
        wanted = expected(place, part)
        assert part.mean.keys() == wanted.keys()
        assert np.allclose([part.mean[name] for name in wanted], list(wanted.values()), rtol=1e-12)
        assert list(part.mean.values()) == sorted(part.mean.values(), reverse=True)
        assert sum(part.as_dict()["share"].values()) == pytest.approx(1.0)


def test_a_sample_is_the_same_again_and_another_by_seed(place: Sandbox) -> None:
    place.predict(ask(200))
    first, again, other = (report(place, sample=20, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert [(part.predictions, part.sampled) for part in first.windows] == [(200, 20)]


def test_predictions_outside_the_windows_do_not_count(place: Sandbox) -> None:
    place.predict(ask(5))
    place.wait(5 * 3_600)
    assert report(place).windows == []
    assert importance(place.project, MODEL, window_us=6 * HOUR, windows=1).windows[0].predictions == 5


def test_without_a_log_there_is_nothing(place: Sandbox) -> None:
    assert report(place).as_dict() == {"model": MODEL, "windows": [], "unexplained": []}
    assert "no prediction in these windows" in run("importance", "--repo", place.repo).stdout


def test_the_command_shows_the_windows(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_CLOCK", f"file:{place.repo}/.skewless/clock")
    place.predict(ask(6))
    shown = run("importance", MODEL, "--window", "1h", "--repo", place.repo).stdout
    assert "6 of 6" in shown
    assert all(label in shown for label in place.model.assembler.labels)
    body = run("importance", "--window", "1h", "--windows", "2", "--repo", place.repo, "--json").body
    assert len(body["windows"]) == 1
    assert run("importance", "--window", "soon", "--repo", place.repo).code == 6
