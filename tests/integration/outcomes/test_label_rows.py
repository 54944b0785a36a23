"""Label rows from outcomes: the same training set, and the same model, as from a table that says the same."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from skewless.contract.clock import to_us
from skewless.contract.labels import Outcomes
from skewless.contract.spec import Split
from skewless.infra.records.outcomes.label_rows import count_labels, read_latest_labels
from skewless.operations.models.quality import labelled_log
from skewless.training.train import train
from tests.integration.outcomes.conftest import DAY, Loop, microseconds
from tests.worlds.trained import MODEL, Row, ask

SPLIT = Split(test=timedelta(days=6), embargo=timedelta(days=1))


def test_equal_rows_give_an_equal_model(outcome_loop: Loop) -> None:
    outcome_loop.predict(14, outcomes=True)
    outcome_loop.place.wait(DAY)
    n, project = len(outcome_loop.known), outcome_loop.place.project
    table = outcome_loop.write_table([*outcome_loop.known, *[None] * 30], outcome_loop.labels)
    by_table = outcome_loop.dataset(table, split=SPLIT)
    # The vectors as they were served are those that are recomputed.
    logged = outcome_loop.dataset(Outcomes(known="declared", vectors="logged"), split=SPLIT)
    assert (logged.counts["logged_vectors"], logged.counts["different_vectors"]) == (n, 0)
    by_outcome = outcome_loop.dataset(Outcomes(), split=SPLIT)
    assert by_outcome.counts["used"] == n == len(outcome_loop.ids) - 30
    assert by_outcome.counts["without_outcome"] == 30
    # Beyond memory, the rows are the same.
    spec, now = project.applied.model(MODEL), outcome_loop.place.now_us()
    with project.training_builder(spec).open_stored() as stored:
        assert stored.counts == by_outcome.counts
        assert len({data.fingerprint for data in (by_table, by_outcome, logged, stored)}) == 1
    first, second = (train(data, spec, project.store, threads=1, now_us=now) for data in (by_outcome, by_table))
    assert first.package.model_file.read_bytes() == second.package.model_file.read_bytes()
    assert first.metrics == second.metrics


def known(row: Row) -> int:
    return to_us(row["outcome_known"])


def test_the_outcome_that_was_known_last_is_the_label(outcome_loop: Loop) -> None:
    """Late, corrected, repeated, contradicting, retracted, impossible and missing outcomes."""
    outcome_loop.predict(1, each=9)
    place, t = outcome_loop.place, outcome_loop.times[0]
    first = outcome_loop.say(
        outcome_loop.outcome(0, 1, known_at=t + 5),
        outcome_loop.outcome(1, 1),
        outcome_loop.outcome(2, 1, known_at=t + 9),
        outcome_loop.outcome(3, 1),
        outcome_loop.outcome(4, 1),
        outcome_loop.outcome(5, 7),
        outcome_loop.outcome(6, None, value=3.0),
        outcome_loop.outcome(8, 0),
    )
    place.wait(DAY)
    second = outcome_loop.say(
        outcome_loop.outcome(0, 0, known_at=t + 3),  # late: it was known before the other
        outcome_loop.outcome(1, 0),  # a correction
        outcome_loop.outcome(2, 0, known_at=t + 9),  # a contradiction: received last
        outcome_loop.outcome(3, 1),  # the same again
        outcome_loop.outcome(4, None),  # a retraction
        outcome_loop.outcome(8, 1),
    )
    place.wait(DAY)
    outcome_loop.say(outcome_loop.outcome(8, 0))
    rows, counts = outcome_loop.label_rows(Outcomes())
    found = {i: rows[outcome_loop.ids[i]] for i in range(9) if outcome_loop.ids[i] in rows}
    assert {i: row["outcome_label"] for i, row in found.items()} == {0: 1, 1: 0, 2: 0, 3: 1, 8: 0}
    # A repeat does not make a label younger, and a label that came back counts from its return.
    expected = {0: first, 1: second, 2: second, 3: first, 8: place.now_us()}
    assert {i: abs(known(row) - expected[i]) < 10_000_000 for i, row in found.items()} == dict.fromkeys(found, True)
    assert known(found[3]) == first
    assert dict(counts) == {
        "predictions": 9,
        "without_keys": 0,
        "unobserved": 0,
        "unusable": 1,
        "retracted": 1,
        "without_outcome": 2,
        "assumed": 0,
        "clipped": 0,
    }
    declared, _ = outcome_loop.label_rows(Outcomes(known="declared"))
    assert [known(declared[outcome_loop.ids[i]]) - t for i in (0, 2)] == [5, 9]
    assert {to_us(row["outcome_time"]) for row in rows.values()} == {t}


def test_what_arrived_later_was_not_known(outcome_loop: Loop) -> None:
    outcome_loop.predict(1, each=2)
    place = outcome_loop.place
    first = outcome_loop.say(outcome_loop.outcome(0, 1))
    place.wait(DAY)
    outcome_loop.say(outcome_loop.outcome(0, 0, known_at=first + 1), outcome_loop.outcome(1, 1, known_at=first))
    clock = place.project.clock
    place.wait(-DAY // 2)
    rows, _ = outcome_loop.label_rows(Outcomes())
    assert clock.now_us() > first
    assert {name: row["outcome_label"] for name, row in rows.items()} == {outcome_loop.ids[0]: 1}
    rows, _ = outcome_loop.label_rows(Outcomes(known="declared"))
    assert {name: row["outcome_label"] for name, row in rows.items()} == {
        outcome_loop.ids[0]: 0,
        outcome_loop.ids[1]: 1,
    }


def test_a_mature_prediction_without_an_outcome_may_have_a_label(outcome_loop: Loop) -> None:
    outcome_loop.predict(3, each=2)
    early = outcome_loop.say(*(outcome_loop.outcome(i, 1) for i in (0, 2)))
    two = Outcomes(maturity=timedelta(days=2), missing=0.0)
    rows, counts = outcome_loop.label_rows(two)
    assert [rows[id_]["outcome_label"] for id_ in outcome_loop.ids] == [1, 0, 1, 0, 0, 0]
    times = np.array(outcome_loop.times)
    mature = times + microseconds(2)
    assert [known(rows[id_]) for id_ in outcome_loop.ids] == np.where(
        np.isin(np.arange(6), (0, 2)), np.maximum(early, mature), mature
    ).tolist()
    assert counts["assumed"] == 4
    # Only the predictions of the first two days are mature.
    log, now = labelled_log(outcome_loop.place.project, MODEL), outcome_loop.place.now_us()
    assert count_labels(log, 0, now) == 4
    assert sorted(read_latest_labels(log, now)["t"].to_pylist()) == outcome_loop.times[:4]
    rows, counts = outcome_loop.label_rows(Outcomes(maturity=timedelta(days=2)))
    assert len(rows) == 2
    assert counts["without_outcome"] == 4


def test_a_table_beside_gives_outcomes_and_rows_of_its_own(outcome_loop: Loop) -> None:
    outcome_loop.predict(2, each=3)
    said = outcome_loop.say(outcome_loop.outcome(0, 1), outcome_loop.outcome(1, 1))
    outcome_loop.place.wait(DAY)
    # Of the table: a correction of the second prediction, the label of the third, one that is not known yet, and a row
    # that no prediction has.
    later = outcome_loop.place.now_us()
    table = outcome_loop.write_table([said - 1, later, later, None, None, None], [0, 0, 1, 1, 1, 1])
    outcome_loop.rows, outcome_loop.times = [ask(1, first=99)[0]], [outcome_loop.times[0]]
    own = outcome_loop.write_table([later], [1], name="data/own.parquet")
    rows, counts = outcome_loop.label_rows(Outcomes(table=table))
    labels = {outcome_loop.ids[i]: label for i, label in enumerate((1, 0, 1))}
    assert {name: row["outcome_label"] for name, row in rows.items() if name} == labels
    assert counts["without_outcome"] == 3
    rows, counts = outcome_loop.label_rows(Outcomes(table=own))
    assert {name: row["outcome_label"] for name, row in rows.items()} == {
        outcome_loop.ids[0]: 1,
        outcome_loop.ids[1]: 1,
        None: 1,
    }
    assert rows[None]["card_id"] == outcome_loop.rows[0]["card_id"]
    assert rows[None]["outcome_weight"] == 1.0
