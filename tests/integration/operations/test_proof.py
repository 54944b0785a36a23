"""Parity and replay alert of what they find, and what was proven is not proven again."""

from __future__ import annotations

from skewless.infra.platform.alerts.alerts import open_alerts
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import DAY_US, remove_predictions
from skewless.operations.predictions.proof import ALL, PARITY, REPLAY, run_parity, run_replay
from tests.unit.infra.predictions.merges import segments
from tests.worlds.planted import alter_predictions, flipped, record_content
from tests.worlds.trained import FIRST_CARD, MODEL, Sandbox, ask


def proven_rows(place: Sandbox) -> list[int]:
    """Return the number of rows of each proven segment."""
    return [segment.rows for segment in segments(ProjectState(place.state)) if segment.is_proven]


def test_only_what_is_new_is_replayed(place: Sandbox) -> None:
    place.predict(ask(30))
    assert run_replay(place.project, new=True).compared == 30
    assert run_replay(place.project, new=True).compared == 0
    place.predict(ask(20))
    assert run_replay(place.project, new=True).compared == 20
    assert run_replay(place.project).compared == 50
    assert proven_rows(place) == [30, 20]
    remove_predictions(ProjectState(place.state), place.now_us() + 2 * DAY_US)
    place.predict(ask(5))
    assert run_replay(place.project, new=True).compared == 5
    assert proven_rows(place) == [5]


def test_a_replay_of_one_model_proves_no_segment(place: Sandbox) -> None:
    place.predict(ask(30))
    assert run_replay(place.project, MODEL).ok
    assert proven_rows(place) == []


def test_a_prediction_that_differs_alerts_until_it_is_explained(place: Sandbox) -> None:
    place.predict(ask(20))
    (path,) = place.log_files()
    honest = path.read_bytes()
    alter_predictions(place, "score", lambda score: flipped(score, 3), rows=[4])
    for _ in range(2):
        assert run_replay(place.project, new=True).different == 1
    (alert,) = open_alerts(ProjectState(place.state))
    assert (alert.name, alert.subject, alert.severity) == (REPLAY, ALL, "critical")
    assert len(alert.evidence["examples"]) == 1
    path.write_bytes(honest)
    record_content(path)
    assert run_replay(place.project, new=True).ok
    assert open_alerts(ProjectState(place.state)) == []


def test_a_state_that_differs_alerts_until_it_is_repaired(place: Sandbox) -> None:
    place.flip("card_days", place.key("card_days", FIRST_CARD), feature=0, bit=1)
    assert not run_parity(place.project, sample=10_000).ok
    (alert,) = open_alerts(ProjectState(place.state))
    assert (alert.name, alert.subject) == (PARITY, "card_days")
    assert str(FIRST_CARD) in alert.evidence["examples"][0]
    for repair in (False, True):
        run_parity(place.project, sample=10_000, repair=repair)
        assert [item.name for item in open_alerts(ProjectState(place.state))] == ([] if repair else [PARITY])
