"""The pages about models: what is not known is said, nothing from outside is markup, and each read has a bound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pytest

from plugins.control_room.tests.model_pages import first_row, html, known, page_of, store_run
from skewless.contract.errors import RequestError, ScopeError, StoreError
from skewless.contract.feedback import Outcome
from skewless.infra.platform.storage.database import Database
from skewless.infra.records.outcomes.log import OutcomeWriter, outcome_spool
from skewless.project import Project
from skewless_control_room.app import to_json
from skewless_control_room.page import Known, Query, Unknown
from skewless_control_room.pages import model, model_parts, model_version, models
from skewless_control_room.pages.model import read_model
from skewless_control_room.pages.model_version import read_version
from skewless_control_room.pages.models import read_models
from skewless_control_room.prediction_counts import HOUR_US, count_predictions
from tests.worlds.hostile_text import MARKUP
from tests.worlds.rollouts import NEW, OLD
from tests.worlds.trained import MODEL, Sandbox, ask

DAY = 86_400


def test_without_a_plan_nothing_is_known(tmp_path: Path) -> None:
    Project.init(tmp_path / "p", template="fraud")
    project = Project(tmp_path / "p")
    page = read_models(project, Query())
    assert isinstance(page.models, Unknown)
    assert "Not known" in html(models.PAGE, page)
    answer = page_of(project)
    for part in (answer.versions, answer.quality, answer.drift):
        assert isinstance(part, Unknown)
    text = html(model.PAGE, answer)
    assert "state good" not in text
    project.close()


def test_without_the_database_each_part_says_so(spot: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise StoreError("database", "is unavailable", fix="start it")

    assert spot.project.applied is not None
    monkeypatch.setattr(Database, "query", refuse)
    row = first_row(spot.project)
    assert (row.problem, row.champion) == ("database: is unavailable", None)
    page = page_of(spot.project)
    parts = (page.versions, page.rollout, page.traffic, page.quality, page.decisions, page.drift)
    assert all(isinstance(part, Unknown) for part in parts)
    text = html(model.PAGE, page)
    assert text.count("database: is unavailable") >= len(parts)
    assert "state good" not in text
    version = read_version(spot.project, Query(path={"model": MODEL, "version": OLD}))
    assert isinstance(version.approvals, Unknown)
    assert "state good" not in html(model_version.PAGE, version)


def test_what_was_never_measured_is_unknown(spot: Sandbox) -> None:
    row = first_row(spot.project)
    assert row.champion == OLD
    assert row.quality is not None
    assert row.drift is not None
    assert (row.quality.kind, row.quality.text) == ("unknown", "not measured yet")
    assert (row.drift.kind, row.drift.text) == ("unknown", "not measured yet")
    text = html(model.PAGE, page_of(spot.project))
    assert "Measure quality now" in text
    assert "skewless quality fraud" in text


def test_the_stored_quality_is_shown_with_its_time_and_grows_old(spot: Sandbox) -> None:
    ids = list(spot.predict(ask(300)).ids)
    spot.wait(10)
    outcomes = [
        Outcome(prediction_id=name, label=float(i % 3 == 0), known_at=spot.now_us()) for i, name in enumerate(ids)
    ]
    store_run(spot, f"quality {MODEL}", spot.project.quality(MODEL).as_dict())
    row = first_row(spot.project)
    assert row.quality is not None
    assert (row.quality.kind, row.quality.labelled) == ("unknown", 0)
    assert row.quality.text == "no outcome of 300 predictions is known yet"

    OutcomeWriter(outcome_spool(spot.project.state)).append(outcomes, received_at=spot.now_us(), source="http")
    spot.wait(10)
    measured = spot.project.quality(MODEL)
    store_run(spot, f"quality {MODEL}", measured.as_dict())
    quality = page_of(spot.project).quality
    assert isinstance(quality, Known)
    own = quality.value.champion
    assert own.value == measured.whole.versions[0].metric(measured.metric)
    # These labels follow no model.
    assert own.kind == "warning"
    assert quality.value.curves[0].values == [own.value]

    spot.wait(1)
    store_run(spot, f"quality {MODEL}", {}, error="the label table is missing")
    quality = page_of(spot.project).quality
    assert isinstance(quality, Known)
    assert quality.value.champion == own
    assert quality.value.stored is not None
    assert quality.value.stored["error"] == "the label table is missing"
    assert "a later run has failed" in html(model.PAGE, page_of(spot.project))

    spot.wait(3 * DAY)
    row = first_row(spot.project)
    assert row.quality is not None
    assert (row.quality.kind, row.quality.text) == ("unknown", "measured 3 d ago")


def test_drift_of_another_version_is_not_that_of_the_champion(spot: Sandbox) -> None:
    spot.predict(ask(20))
    spot.wait(10)
    spot.project.drift(MODEL)
    row = first_row(spot.project)
    assert row.drift is not None
    assert (row.drift.kind, row.drift.text) == ("unknown", "too few predictions (20)")
    spot.project.store.aliases.move(MODEL, "champion", expect=OLD, to=NEW, reason="by hand", now_us=spot.now_us())
    row = first_row(spot.project)
    assert row.drift is not None
    assert row.drift.text == f"measured for version {OLD} only"


def test_only_the_models_of_the_viewer(spot: Sandbox) -> None:
    page = read_models(spot.project, Query(models=frozenset({"other"})))
    assert known(page.models).rows == []
    with pytest.raises(ScopeError):
        read_model(spot.project, Query(path={"model": MODEL}, models=frozenset({"other"})))
    with pytest.raises(ScopeError):
        read_version(spot.project, Query(path={"model": MODEL, "version": OLD}, models=frozenset()))
    with pytest.raises(RequestError):
        read_model(spot.project, Query(path={"model": "other"}))


@pytest.mark.parametrize("version", ["..", "x\0y", "<b>", "9" * 500, "000099", "-1", "1", "\u0663"])
def test_a_version_that_does_not_exist_is_refused(spot: Sandbox, version: str) -> None:
    with pytest.raises(RequestError, match="has no such version"):
        read_version(spot.project, Query(path={"model": MODEL, "version": version}))


def test_texts_from_outside_stay_text(spot: Sandbox) -> None:
    store, holders = spot.project.store, (OLD, NEW)
    for i, text in enumerate(MARKUP):
        spot.wait(1)
        expect, to = holders[i % 2], holders[(i + 1) % 2]
        store.aliases.move(MODEL, "champion", expect=expect, to=to, reason=text, now_us=spot.now_us())
        spot.project.approve(MODEL, NEW, by=text, reason=text)
    page = page_of(spot.project, decisions="60")
    shown = html(model.PAGE, page)
    shown += html(model_version.PAGE, read_version(spot.project, Query(path={"model": MODEL, "version": NEW})))
    assert isinstance(page.decisions, Known)
    assert {row.cause for row in page.decisions.value.rows} >= set(MARKUP)
    for sign in ("<img", "<script>alert", "<svg on", "<iframe", "<a href=javascript", "<meta http", "<base", "<b>"):
        assert sign not in shown


def test_lists_are_bounded_and_continue(spot: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MOST_MODELS", 1)
    monkeypatch.setattr(model, "MOST_VERSIONS", 1)
    assert known(read_models(spot.project, Query()).models).next_after == ""
    page = page_of(spot.project).versions
    assert isinstance(page, Known)
    assert [row.version.version for row in page.value.rows] == [NEW]
    older = page_of(spot.project, before=page.value.next_before).versions
    assert isinstance(older, Known)
    assert [row.version.version for row in older.value.rows] == [OLD]
    assert older.value.next_before == ""
    with pytest.raises(RequestError):
        page_of(spot.project, before="x")
    with pytest.raises(RequestError):
        page_of(spot.project, days="400")


def test_traffic_is_counted_by_version_and_hour_file_by_file(spot: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    since = spot.now_us() // HOUR_US * HOUR_US
    spot.predict(ask(30))
    spot.wait(2 * 3600)
    spot.predict(ask(50), model=spot.load(NEW))
    spot.wait(60)
    assert len(spot.log_files()) == 2
    part = count_predictions(spot.project.state, MODEL, since_us=since, budget_s=-1.0)
    assert (part.files, part.is_complete) == (1, False)
    assert dict(part.hours) == {(NEW, "champion", since + 2 * HOUR_US): 50}
    assert part.since_us > since

    whole = count_predictions(spot.project.state, MODEL, since_us=since, budget_s=60.0)
    assert (whole.files, whole.is_complete, whole.since_us) == (2, True, since)
    assert whole.hours[OLD, "champion", since] == 30  # type: ignore[index]
    assert count_predictions(spot.project.state, "other", since_us=since, budget_s=60.0).hours == {}

    monkeypatch.setattr(model_parts, "_COUNT_BUDGET_S", 60.0)
    traffic = page_of(spot.project, days="1").traffic
    assert isinstance(traffic, Known)
    assert dict(traffic.value.totals) == {OLD: 30, NEW: 50}
    curve = next(curve for curve in traffic.value.curves if curve.name == NEW)
    assert sum(value or 0 for value in curve.values) == 50
    assert len(curve.times) == 24


def test_a_corrupt_file_leaves_the_other_parts(spot: Sandbox) -> None:
    spot.predict(ask(3))
    spot.log_files()[0].write_bytes(b"no parquet")
    page = page_of(spot.project)
    assert isinstance(page.traffic, Unknown)
    assert isinstance(page.versions, Known)
    assert isinstance(page.training, Known)
    (spot.project.packages.version_folder(MODEL, OLD) / "metrics.json").write_text("{}")
    page = page_of(spot.project)
    assert isinstance(page.training, Unknown)
    assert "is altered" in html(model.PAGE, page) or "altered" in page.training.unknown


def test_pages_are_plain_values(spot: Sandbox) -> None:
    spot.predict(ask(5))
    for data in (
        read_models(spot.project, Query()),
        page_of(spot.project),
        read_version(spot.project, Query(path={"model": MODEL, "version": OLD})),
    ):
        body = to_json(data)
        assert json.loads(body)
        assert len(body) < 250_000
