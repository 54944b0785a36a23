"""Live quality of logged predictions: what is labelled by whom, and that the numbers are those of the labels."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.feedback import parse_feedback
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.outcomes.log import OutcomeWriter, outcome_spool
from skewless.operations.models.quality import labelled_log, quality
from skewless.validation.evaluation.evaluation import evaluate
from skewless.validation.live_quality import live_quality
from tests.unit.infra.predictions.merges import import_file
from tests.worlds.trained import MODEL, NOW, SECOND, Row, Sandbox, ask

DAY = 86_400 * SECOND
Said = dict[str, Any]


def say(place: Sandbox, *rows: Said) -> None:
    """Append feedback as the server does."""
    plan = place.project.applied.plan.select_service("fraud_features")
    outcomes = parse_feedback(rows, lambda _: plan, place.now_us(), 10_000)
    OutcomeWriter(outcome_spool(ProjectState(place.state))).append(outcomes, received_at=place.now_us(), source="test")


def labelled(place: Sandbox, *, known_by: int | None = None) -> dict[str, Row]:
    """Return the predictions by their id."""
    now = place.now_us()
    rows = labelled_log(place.project, MODEL).read(since_us=0, until_us=now + DAY, known_by_us=known_by or now)
    assert rows.num_rows == len(set(rows["id"].to_pylist()))
    return {row["id"]: row for row in rows.to_pylist()}


def labels(place: Sandbox, ids: Any) -> list[float | None]:  # noqa: ANN401 - ids of an answer
    found = labelled(place)
    return [found[id_]["label"] for id_ in ids]


def entity(row: Row, at: int, **said: Any) -> Said:  # noqa: ANN401 - JSON
    return {"model": MODEL, "keys": row, "event_time": at, **said}


def test_the_quality_is_that_of_the_labels_that_came(place: Sandbox) -> None:
    answer = place.predict(ask(200))
    truth = (np.arange(200) % 3 == 0).astype(float)
    place.wait(3_600)
    say(place, *({"prediction_id": answer.ids[i], "label": truth[i], "value": float(i)} for i in range(150)))
    report = quality(place.project, MODEL)
    (found,) = report.whole.versions
    assert (found.version, found.predictions, found.labelled, found.valued) == ("000001", 200, 150, 150)
    assert found.coverage == 0.75
    expected = evaluate(truth[:150], answer.scores[:150])
    assert found.metrics == pytest.approx(expected)
    assert found.value == pytest.approx(np.arange(150).mean())
    assert found.interval is not None
    assert found.interval.low < float(expected["auc"] or 0) < found.interval.high
    assert found.estimated is not None
    assert found.estimated["rows"] == 200
    assert report.trained["000001"]["auc"] == place.model.package.metrics["auc"]
    assert json.loads(json.dumps(report.as_dict()))["versions"][0]["labelled"] == 150


def test_what_was_known_last_holds(place: Sandbox) -> None:
    ids = place.predict(ask(6)).ids
    t = place.now_us()
    place.wait(60)
    say(
        place,
        {"prediction_id": ids[0], "label": 1, "known_at": t + 5},
        {"prediction_id": ids[0], "label": 0, "known_at": t + 3},
        {"prediction_id": ids[1], "label": 1},
        {"prediction_id": ids[2], "label": 1, "known_at": t},
        {"prediction_id": ids[4], "label": 7},
    )
    place.wait(60)
    say(
        place,
        {"prediction_id": ids[0], "label": 1, "known_at": t + 5},
        {"prediction_id": ids[1], "label": None},
        {"prediction_id": ids[2], "label": 0, "known_at": t},
        {"prediction_id": "of nobody", "label": 1},
    )
    assert labels(place, ids) == [1, None, 0, None, 7, None]
    report = quality(place.project, MODEL)
    counts = report.outcomes
    assert (counts.rows, counts.subjects, counts.duplicates) == (9, 5, 1)
    assert (counts.corrections, counts.contradictions, counts.retractions, counts.late) == (1, 1, 1, 1)
    (found,) = report.whole.versions
    assert (found.labelled, found.unusable) == (3, 1)


def test_an_outcome_by_id_that_names_a_model_counts_for_that_model_alone(place: Sandbox) -> None:
    ids = place.predict(ask(4)).ids
    place.wait(60)
    say(
        place,
        {"prediction_id": ids[0], "label": 1, "model": MODEL},
        {"prediction_id": ids[1], "label": 1, "model": "pricing"},
        {"prediction_id": ids[2], "label": 1},
        {"prediction_id": ids[2], "label": 0, "model": "pricing"},
        {"prediction_id": ids[3], "label": None, "model": MODEL},
    )
    assert labels(place, ids) == [1, None, 1, None]


def test_feedback_by_entity_finds_the_nearest_prediction(place: Sandbox) -> None:
    rows = ask(3)
    first = place.predict(rows)
    place.wait(100)
    second = place.predict(rows[:1])
    place.wait(600)
    t = first.t
    keys = {name: rows[1][name] for name in ("card_id", "shop_id")}
    say(
        place,
        entity(rows[0] | {"card_id": str(rows[0]["card_id"])}, t + 40 * SECOND, label=1),
        entity(keys, t - 200 * SECOND, label=0),
        entity(rows[2], t + 400 * SECOND, label=1),
        entity(rows[2] | {"amount": 1.0}, t, label=1),
    )
    assert labels(place, [*first.ids, *second.ids]) == [1, 0, None, None]
    say(place, entity(rows[0], t + 99 * SECOND, label=0))
    assert labels(place, [*first.ids, *second.ids]) == [1, 0, None, 0]


def test_labels_come_from_the_label_table_too(place: Sandbox) -> None:
    now = place.now_us()  # it has gone on since the project was made
    rows = [row | {"paid_at": now + 60 * SECOND} for row in ask(4)]
    answer = place.predict(rows)
    path = place.repo / "data/payments.parquet"
    table = pq.read_table(path)
    when = pa.array([now + 60 * SECOND] * 4, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    known = pa.array([now + DAY, now + DAY, now + DAY, now + 9 * DAY], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    new = {name: [row[name] for row in rows] for name in ("card_id", "shop_id", "amount")}
    added = pa.table({**new, "paid_at": when, "known_at": known, "fraud": [1, 0, 1, 1]})
    pq.write_table(pa.concat_tables([table, added.select(table.column_names).cast(table.schema)]), path)
    place.wait(2 * 86_400)
    assert labels(place, answer.ids) == [1, 0, 1, None]
    say(
        place,
        {"prediction_id": answer.ids[0], "label": 0},
        {"prediction_id": answer.ids[1], "label": 1, "known_at": NOW},
    )
    assert labels(place, answer.ids) == [0, 0, 1, None]
    assert [labelled(place, known_by=now + DAY)[id_]["label"] for id_ in answer.ids] == [1, 0, 1, None]
    place.wait(8 * 86_400)
    assert labels(place, answer.ids) == [0, 0, 1, 1]


def test_each_version_in_each_role_has_its_own_prediction(place: Sandbox) -> None:
    rows = ask(2)
    answer = place.predict(rows)
    (path,) = place.log_files()
    shadow = pq.read_table(path)
    for name, value in (("version", "000002"), ("role", "shadow"), ("policy", 3)):
        column = pa.array([value] * shadow.num_rows, shadow.schema.field(name).type)
        shadow = shadow.set_column(shadow.column_names.index(name), name, column)
    written = place.state / f"{path.name[:20]}-shadow.parquet"
    pq.write_table(shadow, written)
    import_file(ProjectState(place.state), written)
    place.wait(60)
    say(place, {"prediction_id": answer.ids[0], "label": 1}, entity(rows[1], answer.t + SECOND, label=0))
    now = place.now_us()
    found = labelled_log(place.project, MODEL).read(since_us=0, until_us=now, known_by_us=now)
    assert sorted(zip(found["id"].to_pylist(), found["role"].to_pylist(), found["label"].to_pylist(), strict=True)) == (
        sorted(
            (id_, role, label) for id_, label in zip(answer.ids, (1, 0), strict=True) for role in ("champion", "shadow")
        )
    )
    assert sorted(zip(found["role"].to_pylist(), found["policy"].to_pylist(), strict=True), key=str) == (
        [("champion", None)] * 2 + [("shadow", 3)] * 2
    )
    versions = live_quality(found, place.project.applied.model(MODEL))
    assert [(each.version, each.labelled) for each in versions] == [("000001", 2), ("000002", 2)]


def test_windows_add_up_and_maturity_is_that_of_the_delays(place: Sandbox) -> None:
    asked = 0
    for n in (10, 20, 30):
        place.predict(ask(n))
        place.wait(86_400)
        asked += n
    report = quality(place.project, MODEL)
    assert [window.versions[0].predictions for window in report.windows] == [10, 20, 30]
    (whole,) = report.whole.versions
    assert whole.predictions == asked
    assert report.delay_us is not None
    old = sum(n for n, days in ((10, 3), (20, 2), (30, 1)) if days * DAY >= report.delay_us)
    assert whole.mature == old
    assert whole.metrics is None


def test_no_prediction_has_no_quality(place: Sandbox) -> None:
    report = quality(place.project, MODEL)
    assert (report.whole.versions, report.windows, report.outcomes.rows) == ([], [], 0)
