"""Replay finds nothing in what was honestly served, and names every defect that was planted (SEMANTICS 7.2)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import PackageError, RequestError
from skewless.contract.vector import Assembler
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.infra.reads.online.service_vectors import VectorReader
from skewless.infra.records.predictions import reader
from skewless.validation.replay_report import Cause
from tests.worlds.planted import RuntimeBefore, alter, alter_predictions, flipped, named, reseal
from tests.worlds.trained import FIRST_CARD, MODEL, NOW, Sandbox, ask, later_rows, looked_up

MEAN, RATIO, HOUR = "card_days__mean_amount_7d", "payment_time__amount_ratio", "payment_time__hour"
ODD_ROWS: list[dict[str, Any]] = [
    {"card_id": 5, "shop_id": "nowhere", "amount": None, "paid_at": 0},
    {"card_id": None, "shop_id": "", "amount": 0.1 + 0.2, "paid_at": "1969-12-31T23:00:00+00:00"},
    {"card_id": str(FIRST_CARD), "shop_id": "Zürich 日本", "amount": -0.0, "paid_at": NOW},
]


def test_what_was_served_is_proven(place: Sandbox) -> None:
    place.predict(ask(300))
    place.predict(ODD_ROWS)
    report = place.project.replay()
    assert report.ok, report.lines()
    assert (report.compared, report.different, report.inside_run) == (303, 0, 0)
    assert report.status["card_days"] == {"PRESENT": 301, "NOT_FOUND": 2}
    assert report.status["shop_risk"] == {"PRESENT": 300, "NOT_FOUND": 3}
    assert {mode: gap.different for mode, gap in report.training.items()} == {"knowledge": 0, "event_time": 0}
    assert json.loads(json.dumps(report.as_dict()))["different"] == 0
    assert any("NOT_FOUND: 2 keys (including the null key)" in line for line in report.lines())


def test_the_vectors_that_were_proven_are_those_of_the_source(place: Sandbox) -> None:
    answer = place.predict(ask(300))
    assert place.project.replay().ok
    source = pd.read_parquet(place.repo / "data/card_days.parquet").sort_values("event_time")
    expected = source.groupby("card_id").last(min_count=-1)
    newest = source.drop_duplicates("card_id", keep="last").set_index("card_id").loc[expected.index]
    got = dict(zip(place.model.assembler.labels, answer.matrix.T, strict=True))
    np.testing.assert_array_equal(got["card_days__payments_7d"], newest["payments_7d"].to_numpy(float))
    np.testing.assert_array_equal(got[MEAN], newest["mean_amount_7d"].to_numpy(float))
    booster = lgb.Booster(model_file=place.model.package.model_file)
    np.testing.assert_array_equal(answer.scores, np.asarray(booster.predict(answer.matrix)))


def test_the_log_is_read_in_pieces(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for first in (0, 40):
        place.predict(ask(40, first))
    whole = place.project.replay()
    monkeypatch.setattr(reader, "BATCH_ROWS", 29)
    pieces = place.project.replay()
    assert pieces.as_dict() == whole.as_dict()
    assert pieces.compared == 80
    with pytest.raises(RequestError, match="is unknown"):
        place.project.replay(model="other")


@pytest.mark.parametrize("bit", [0, pytest.param(31, marks=pytest.mark.soak), pytest.param(63, marks=pytest.mark.soak)])
def test_a_flipped_bit_in_a_logged_value(place: Sandbox, bit: int) -> None:
    place.predict(ask(20))
    column = place.model.assembler.labels.index("shop_risk__refund_share")

    def change(vector: list[float]) -> list[float]:
        return [*vector[:column], flipped(vector[column], bit), *vector[column + 1 :]]

    alter_predictions(place, "vector", change, rows=[7])
    report = place.project.replay()
    assert named(report) == {(Cause.LOGGED_VALUE, "checksum")}
    assert report.different == 1
    (path,) = place.log_files()
    assert report.findings.predictions == {pq.read_table(path)["id"][7].as_py()}


def test_what_was_altered_in_logged_rows_is_named(place: Sandbox) -> None:
    answer = place.predict(ask(20))
    alter_predictions(place, "score", lambda score: flipped(score, 3), rows=[0])
    alter_predictions(place, "transform_hashes", lambda hashes: ["0" * len(hashes[0])], rows=[3, 4])
    alter_predictions(place, "reads", lambda reads: [reads[0] | {"status": 3}, *reads[1:]], rows=[6])
    report = place.project.replay()
    assert report.findings.by_cause == {Cause.LOGGED_VALUE: 4}
    assert report.findings.predictions == {answer.ids[row] for row in (0, 3, 4, 6)}
    # Served so, the same values have other causes.
    reseal(*place.log_files())
    report = place.project.replay()
    assert report.findings.by_cause == {Cause.SCORE: 1, Cause.TRANSFORM: 2, Cause.STATUS: 1}
    assert named(report) == {
        (Cause.SCORE, MODEL),
        (Cause.TRANSFORM, "payment_time"),
        (Cause.STATUS, "card_days"),
    }


def test_a_changed_transform(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    (runner,) = place.model.assembler.runners
    honest = runner.run

    def other(inputs: Any) -> dict[str, Any]:  # noqa: ANN401 - the columns of a transform
        outputs = honest(inputs)
        return outputs | {"hour": np.floor(outputs["hour"] / 2)}

    monkeypatch.setattr(runner, "run", other)
    answer = place.predict(ask(50))
    monkeypatch.undo()
    report = place.project.replay()
    hours = np.array([row["paid_at"] // 3_600_000_000 % 24 for row in ask(50)])
    assert named(report) == {(Cause.TRANSFORM, HOUR)}
    assert report.different == int((hours != hours // 2).sum())
    assert not np.isnan(answer.scores).any()


def test_another_transform_text_than_the_package_has(place: Sandbox) -> None:
    plan = place.model.plan
    (transform,) = plan.transforms
    source = transform.source.replace("amount / mean", "amount / (mean + 1)")
    other = replace(plan, transforms=(replace(transform, source=source),))
    assembler = Assembler(other, place.model.package.plan["vocabularies"])
    reader = VectorReader(assembler, place.model.windows)
    served = replace(place.model, plan=other, assembler=assembler, reader=reader)
    place.predict(ask(20), model=served)
    report = place.project.replay()
    assert {(Cause.TRANSFORM, "payment_time"), (Cause.TRANSFORM, RATIO), (Cause.PLAN, "plan")} == named(report)
    assert report.different == 20


def test_a_row_that_is_gone_is_a_lost_write(place: Sandbox) -> None:
    place.redis.delete(place.key("shop_risk", "shop-03"))
    place.predict(ask(80))
    report = place.project.replay()
    assert (named(report), report.different) == ({(Cause.LOST_WRITE, "shop_risk")}, 2)
    assert "('shop-03',) read nothing" in report.findings.examples[0].detail


@pytest.mark.parametrize(("read_before", "cause"), [(False, Cause.LOST_WRITE), (True, Cause.STALE_WRITE)])
def test_an_older_row_over_a_newer_one(place: Sandbox, cause: Cause, *, read_before: bool) -> None:
    key = place.key("card_days", FIRST_CARD)
    older = place.stored(key)
    place.publish(later_rows(place, 3))
    place.project.materialize(check=False)
    place.wait(1)
    if read_before:
        place.predict(ask(5))
    place.redis.set(key, older)
    place.predict(ask(5))
    report = place.project.replay()
    assert (named(report), report.different) == ({(cause, "card_days")}, 1)
    assert report.findings.by_cause == {cause: 1}


def test_a_row_that_no_run_had_written_yet(place: Sandbox) -> None:
    place.predict(ask(5))
    hour = 3_600_000_000
    for column in ("t", "asked_at", "read_start", "read_end"):
        alter_predictions(place, column, lambda t: t - hour, rows=range(5))
    reseal(*place.log_files())
    report = place.project.replay()
    assert named(report) >= {(Cause.UNKNOWN_VERSION, "card_days"), (Cause.UNKNOWN_VERSION, "shop_risk")}
    assert report.different == 5


def test_a_model_scored_through_float32(place: Sandbox) -> None:
    booster = lgb.Booster(model_file=place.model.package.model_file)
    ratio = place.model.assembler.labels.index(RATIO)
    means = place.predict(ask(1)).matrix[0]
    mean = means[place.model.assembler.labels.index(MEAN)]
    rows = [ask(1)[0] | {"amount": at * mean} for at in _near(booster, ratio)]
    runtime = RuntimeBefore(place.model.runtime, lambda matrix: matrix.astype(np.float32).astype(np.float64))
    matrix = place.predict(rows, model=replace(place.model, runtime=runtime)).matrix
    narrow = np.asarray(booster.predict(matrix.astype(np.float32).astype(np.float64)))
    expected = int((np.asarray(booster.predict(matrix)) != narrow).sum())
    report = place.project.replay()
    assert expected >= 5
    assert (named(report), report.different) == ({(Cause.FLOAT32_SCORE, MODEL)}, expected)
    assert report.findings.by_cause == {Cause.FLOAT32_SCORE: expected}


def _near(booster: lgb.Booster, feature: int) -> list[float]:
    """Return values of a feature beside each of its split thresholds, closer than float32 can tell."""
    trees = booster.trees_to_dataframe()
    thresholds = trees.loc[trees["split_feature"] == booster.feature_name()[feature], "threshold"].astype(float)
    return [value * (1 + shift) for value in sorted(set(thresholds)) for shift in (-1e-9, 1e-9)]


def test_a_score_that_the_model_does_not_give(place: Sandbox) -> None:
    runtime = RuntimeBefore(place.model.runtime, lambda matrix: matrix[:, ::-1].copy())
    answer = place.predict(ask(20), model=replace(place.model, runtime=runtime))
    report = place.project.replay()
    honest = place.model.runtime.score(answer.matrix)
    assert named(report) == {(Cause.SCORE, MODEL)}
    assert report.different == int((honest != answer.scores).sum()) > 0


@pytest.mark.parametrize("bit", [0, pytest.param(55, marks=pytest.mark.soak), pytest.param(63, marks=pytest.mark.soak)])
def test_a_flipped_bit_in_a_stored_value(place: Sandbox, bit: int) -> None:
    place.flip("card_days", place.key("card_days", FIRST_CARD + 2), feature=1, bit=bit)
    place.predict(ask(10))
    report = place.project.replay()
    # The ratio computed from the mean differs with it; nobody may blame the transform.
    assert (Cause.VALUE, MEAN) in named(report) <= {(Cause.VALUE, MEAN), (Cause.VALUE, RATIO)}
    assert report.different == 1


def test_altered_log_rows(place: Sandbox) -> None:
    answer = place.predict(ask(10))
    seqs = looked_up(answer).versions["shop_risk"].seq.tolist()
    (path,) = place.project.views.log(place.view("shop_risk")).files()
    changes: dict[str, Callable[[Any], Any]] = {
        "refund_share": lambda share: share + 1e-15,
        "__event_ts": lambda moment: moment - 1,
        "shop_id": lambda _: "another",
        "__run_id": lambda run: run + 1,
    }
    for row, (column, change) in enumerate(changes.items(), 3):
        alter(Path(path), column, {seqs[row]: change})
    report = place.project.replay()
    assert {(Cause.VALUE, "shop_risk__refund_share"), (Cause.LOG_ALTERED, "shop_risk")} <= named(report)
    assert (report.findings.by_cause[Cause.VALUE], report.findings.by_cause[Cause.LOG_ALTERED]) == (1, 3)
    assert report.findings.predictions == set(answer.ids[3:7])


@pytest.mark.parametrize("file", ["model.txt", "spec.json", "plan.json", "reference_rows.npy", "extra/payment_time.py"])
def test_an_altered_package_proves_nothing(place: Sandbox, file: str) -> None:
    place.predict(ask(2))
    path = place.model.package.path / file
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(PackageError) as caught:
        place.project.replay()
    assert caught.value.value == file


def test_a_store_that_was_away_is_replayed_as_away(place: Sandbox) -> None:
    answer = place.predict(ask(30), online=RedisReader("redis://127.0.0.1:1"))
    place.predict(ask(30))
    assert answer.degraded
    assert math.isnan(answer.matrix[0, place.model.assembler.labels.index(MEAN)])
    report = place.project.replay()
    assert (report.ok, report.compared) == (True, 60)
    assert report.status["card_days"] == {"PRESENT": 30, "UNAVAILABLE": 30}
