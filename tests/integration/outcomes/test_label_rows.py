"""Label rows from outcomes: the same training set, and the same model, as from a table that says the same."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from skewless.contract.clock import to_us
from skewless.contract.labels import KnownTime, Outcomes
from skewless.contract.spec import Split
from skewless.infra.outcomes.label_rows import count_labels, read_latest_labels
from skewless.operations.quality import labelled_log
from skewless.training.train import train
from tests.integration.outcomes.conftest import DAY, Loop, microseconds
from tests.worlds.trained import MODEL, Row, ask

SPLIT = Split(test=timedelta(days=6), embargo=timedelta(days=1))


@pytest.mark.parametrize("known", ["arrived", "declared"])
def test_equal_rows_give_an_equal_model(loop: Loop, known: KnownTime) -> None:
    loop.predict(20, outcomes=True)
    loop.place.wait(DAY)
    by_outcome = loop.dataset(Outcomes(known=known), split=SPLIT)
    n = len(loop.known)
    assert by_outcome.counts["used"] == n == len(loop.ids) - 30
    assert by_outcome.counts["without_outcome"] == 30
    table = loop.write_table([*loop.known, *[None] * 30], loop.labels)
    by_table = loop.dataset(table, split=SPLIT)
    assert by_outcome.fingerprint == by_table.fingerprint
    # The vectors as they were served are those that are recomputed.
    logged = loop.dataset(Outcomes(known=known, vectors="logged"), split=SPLIT)
    assert (logged.counts["logged_vectors"], logged.counts["different_vectors"]) == (n, 0)
    assert logged.fingerprint == by_table.fingerprint
    models = [
        train(dataset, loop.use(labels, split=SPLIT), loop.place.project.store, threads=1, now_us=loop.place.now_us())
        for dataset, labels in ((by_outcome, Outcomes(known=known)), (by_table, table))
    ]
    assert len({each.package.model_file.read_bytes() for each in models}) == 1
    assert models[0].metrics == models[1].metrics


def known(row: Row) -> int:
    return to_us(row["outcome_known"])


def test_the_outcome_that_was_known_last_is_the_label(loop: Loop) -> None:
    """Late, corrected, repeated, contradicting, retracted, impossible and missing outcomes."""
    loop.predict(1, each=9)
    place, t = loop.place, loop.times[0]
    first = loop.say(
        loop.outcome(0, 1, known_at=t + 5),
        loop.outcome(1, 1),
        loop.outcome(2, 1, known_at=t + 9),
        loop.outcome(3, 1),
        loop.outcome(4, 1),
        loop.outcome(5, 7),
        loop.outcome(6, None, value=3.0),
        loop.outcome(8, 0),
    )
    place.wait(DAY)
    second = loop.say(
        loop.outcome(0, 0, known_at=t + 3),  # late: it was known before the other
        loop.outcome(1, 0),  # a correction
        loop.outcome(2, 0, known_at=t + 9),  # a contradiction: received last
        loop.outcome(3, 1),  # the same again
        loop.outcome(4, None),  # a retraction
        loop.outcome(8, 1),
    )
    place.wait(DAY)
    loop.say(loop.outcome(8, 0))
    rows, counts = loop.label_rows(Outcomes())
    found = {i: rows[loop.ids[i]] for i in range(9) if loop.ids[i] in rows}
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
    declared, _ = loop.label_rows(Outcomes(known="declared"))
    assert [known(declared[loop.ids[i]]) - t for i in (0, 2)] == [5, 9]
    assert {to_us(row["outcome_time"]) for row in rows.values()} == {t}


def test_what_arrived_later_was_not_known(loop: Loop) -> None:
    loop.predict(1, each=2)
    place = loop.place
    first = loop.say(loop.outcome(0, 1))
    place.wait(DAY)
    loop.say(loop.outcome(0, 0, known_at=first + 1), loop.outcome(1, 1, known_at=first))
    clock = place.project.clock
    place.wait(-DAY // 2)
    rows, _ = loop.label_rows(Outcomes())
    assert clock.now_us() > first
    assert {name: row["outcome_label"] for name, row in rows.items()} == {loop.ids[0]: 1}
    rows, _ = loop.label_rows(Outcomes(known="declared"))
    assert {name: row["outcome_label"] for name, row in rows.items()} == {loop.ids[0]: 0, loop.ids[1]: 1}


def test_a_mature_prediction_without_an_outcome_may_have_a_label(loop: Loop) -> None:
    loop.predict(3, each=2)
    early = loop.say(*(loop.outcome(i, 1) for i in (0, 2)))
    two = Outcomes(maturity=timedelta(days=2), missing=0.0)
    rows, counts = loop.label_rows(two)
    assert [rows[id_]["outcome_label"] for id_ in loop.ids] == [1, 0, 1, 0, 0, 0]
    times = np.array(loop.times)
    mature = times + microseconds(2)
    assert [known(rows[id_]) for id_ in loop.ids] == np.where(
        np.isin(np.arange(6), (0, 2)), np.maximum(early, mature), mature
    ).tolist()
    assert counts["assumed"] == 4
    # Only the predictions of the first two days are mature.
    log, now = labelled_log(loop.place.project, MODEL), loop.place.now_us()
    assert count_labels(log, 0, now) == 4
    assert sorted(read_latest_labels(log, now)["t"].to_pylist()) == loop.times[:4]
    rows, counts = loop.label_rows(Outcomes(maturity=timedelta(days=2)))
    assert len(rows) == 2
    assert counts["without_outcome"] == 4


def test_a_table_beside_gives_outcomes_and_rows_of_its_own(loop: Loop) -> None:
    loop.predict(2, each=3)
    said = loop.say(loop.outcome(0, 1), loop.outcome(1, 1))
    loop.place.wait(DAY)
    # Of the table: a correction of the second prediction, the label of the third, one that is not known yet, and a row
    # that no prediction has.
    later = loop.place.now_us()
    table = loop.write_table([said - 1, later, later, None, None, None], [0, 0, 1, 1, 1, 1])
    loop.rows, loop.times = [ask(1, first=99)[0]], [loop.times[0]]
    own = loop.write_table([later], [1], name="data/own.parquet")
    rows, counts = loop.label_rows(Outcomes(table=table))
    labels = {loop.ids[i]: label for i, label in enumerate((1, 0, 1))}
    assert {name: row["outcome_label"] for name, row in rows.items() if name} == labels
    assert counts["without_outcome"] == 3
    rows, counts = loop.label_rows(Outcomes(table=own))
    assert {name: row["outcome_label"] for name, row in rows.items()} == {loop.ids[0]: 1, loop.ids[1]: 1, None: 1}
    assert rows[None]["card_id"] == loop.rows[0]["card_id"]
    assert rows[None]["outcome_weight"] == 1.0
