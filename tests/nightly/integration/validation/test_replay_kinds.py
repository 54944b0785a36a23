"""Replay of all that a server may be asked: full vectors, other times, cached features, several outputs (2.7, 7.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import StoreError
from skewless.contract.status import Status
from skewless.contract.vector import Matrix
from skewless.infra.models.packages.served_model import ServedModel, load_model
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.serving.prediction.predictor import Predictor, PredictorLimits
from skewless.serving.prediction.routing import Options, ScoringRequest
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.validation.replay_report import Cause
from tests.worlds.planted import RuntimeBefore, alter_predictions, flipped, named, reseal
from tests.worlds.trained import MODEL, SECOND, Sandbox, ask, later_rows

HOUR = 3_600
MEAN = "card_days__mean_amount_7d"
Step = Callable[[], Any]


def answers(
    place: Sandbox, questions: Sequence[ScoringRequest | Step], limits: PredictorLimits | None = None
) -> list[ScoredSlice]:
    """Ask one predictor one question after the other, with steps between; the log is durable on return."""
    return asyncio.run(_answers(place, questions, limits))


async def _answers(
    place: Sandbox, questions: Sequence[ScoringRequest | Step], limits: PredictorLimits | None
) -> list[ScoredSlice]:
    reader, log = RedisReader(place.project.redis_url), place.log()
    predictor = Predictor(online=reader, clock=place.project.clock, log=log, limits=limits)
    found = []
    for question in questions:
        if isinstance(question, ScoringRequest):
            found.append(await predictor.score(question))
        else:
            question()
    await predictor.close()
    log.close()
    await reader.close()
    return found


def entities(place: Sandbox, n: int, as_of: int | None = None) -> ScoringRequest:
    rows = ask(n)
    columns = place.model.parser.parse_rows(rows)
    return ScoringRequest(model=place.model, n=n, rows=rows, columns=columns, options=Options(as_of=as_of))


def vectors(model: ServedModel, matrix: Matrix) -> ScoringRequest:
    return ScoringRequest(model=model, n=len(matrix), rows=matrix.tolist(), vectors=matrix)


def some_vectors(place: Sandbox, n: int) -> Matrix:
    """Return vectors as a caller would send them, odd numbers among them."""
    matrix = np.random.default_rng(5).normal(50, 30, (n, place.model.runtime.n_features))
    matrix[1] = np.nan
    matrix[2, :4] = [np.inf, -np.inf, -0.0, 5e-324]
    return matrix


def test_sent_vectors_are_scored_again(place: Sandbox) -> None:
    place.predict(ask(5))
    (answer,) = answers(place, [vectors(place.model, some_vectors(place, 20))])
    report = place.project.replay()
    assert report.ok, report.lines()
    assert (report.compared, report.given) == (25, 20)
    assert report.status["card_days"] == {"PRESENT": 5}
    assert report.training["knowledge"].rows == 5
    assert any("20 of them came as full vectors" in line for line in report.lines())
    np.testing.assert_array_equal(answer.scores, place.model.runtime.score(some_vectors(place, 20)))


def test_altered_vectors_that_were_sent(place: Sandbox) -> None:
    sent = vectors(place.model, some_vectors(place, 5))
    answers(place, [sent, sent])

    def change(vector: list[float], column: int) -> list[float]:
        other = 1.5 if np.isnan(vector[column]) else flipped(vector[column], 63)
        return [*vector[:column], other, *vector[column + 1 :]]

    altered = {0: 3, 1: 0, 2: 0, 5 + 2: 2}
    for row, column in altered.items():
        alter_predictions(place, "vector", partial(change, column=column), rows=[row])
    report = place.project.replay()
    assert set(report.findings.by_cause) == {Cause.LOGGED_VALUE}
    (path,) = place.log_files()
    ids = pq.read_table(path)["id"].to_pylist()
    assert report.findings.predictions == {ids[row] for row in altered}


def test_a_vector_that_is_not_the_one_sent(place: Sandbox) -> None:
    sent = some_vectors(place, 5)
    other = np.where(np.isfinite(sent), sent + 1, sent)
    answers(place, [ScoringRequest(model=place.model, n=len(sent), rows=sent.tolist(), vectors=other)])
    report = place.project.replay()
    assert set(report.findings.by_cause) == {Cause.VALUE}
    assert report.different == 4


def test_a_score_that_a_sent_vector_does_not_give(place: Sandbox) -> None:
    runtime = RuntimeBefore(place.model.runtime, lambda matrix: matrix[:, ::-1].copy())
    model = replace(place.model, runtime=runtime)
    (answer,) = answers(place, [vectors(model, some_vectors(place, 20))])
    honest = place.model.runtime.score(some_vectors(place, 20))
    report = place.project.replay()
    assert named(report) == {(Cause.SCORE, MODEL)}
    assert report.different == int((honest != answer.scores).sum()) > 0


def test_inputs_that_are_no_vector(place: Sandbox) -> None:
    answers(place, [vectors(place.model, some_vectors(place, 5))])
    for inputs in ("[1.0]", '{"card_id": 1}', "7"):
        alter_predictions(place, "inputs", lambda _, inputs=inputs: inputs)  # type: ignore[misc]  # no type for a default
        reseal(*place.log_files())
        with pytest.raises(StoreError, match="not vectors of the model"):
            place.project.replay()


def test_as_of_is_judged_by_the_clock_and_evaluated_at_its_time(place: Sandbox) -> None:
    place.publish(later_rows(place, 10))
    place.project.materialize(check=False)
    place.wait(2)
    now = place.now_us()
    expected = {-30 * 24: {Status.FUTURE}, -1: {Status.PRESENT, Status.FUTURE}, 30 * 24: {Status.EXPIRED}}
    times = [now + hours * HOUR * SECOND + 123_456 for hours in expected]
    *found, _ = answers(place, [*(entities(place, 20, as_of=t) for t in times), entities(place, 7)])
    assert [answer.t for answer in found] == times
    assert [set(answer.scored.status[:, 0].tolist()) for answer in found] == list(expected.values())
    report = place.project.replay()
    assert report.ok, report.lines()
    assert (report.compared, report.inside_run) == (67, 0)
    assert report.training["knowledge"].as_dict() == {"rows": 7, "different": 0, "reasons": {}}
    (path,) = place.log_files()
    logged = pq.read_table(path).to_pydict()
    assert all(now <= asked <= logged["read_start"][i] for i, asked in enumerate(logged["asked_at"]))


CACHED = PredictorLimits(feature_cache_ms=60_000)


def test_what_a_cache_held_is_legitimate(place: Sandbox) -> None:
    """The second answer stands on what was read before the run; the third was read anew."""

    def change() -> None:
        place.publish(later_rows(place, 10))
        place.project.materialize(check=False)
        place.wait(30)

    asked: list[ScoringRequest | Step] = [entities(place, 20), change, entities(place, 20), entities(place, 40)]
    first, second, third = answers(place, asked, CACHED)
    column = place.model.assembler.labels.index(MEAN)
    np.testing.assert_array_equal(first.matrix[:, column], second.matrix[:, column])
    np.testing.assert_array_equal(first.matrix[:, column], third.matrix[:20, column])
    report = place.project.replay()
    assert report.ok, report.lines()
    # All reads of the two later ones began before the run; for 10 keys it came in between.
    assert (report.compared, report.inside_run) == (80, 60)
    assert (report.changing, report.saw_old, report.saw_new) == (20, 20, 0)
    assert report.training["knowledge"].reasons["card_days"] == {"cached": 20}


def test_older_state_than_the_cache_could_hold_is_a_lost_write(place: Sandbox) -> None:
    before = place.now_us()
    place.publish(later_rows(place, 10))
    key = place.key("card_days", ask(1)[0]["card_id"])
    older = place.stored(key)
    place.project.materialize(check=False)
    place.wait(30)
    place.redis.set(key, older)
    answers(place, [entities(place, 5), lambda: place.wait(20), entities(place, 5)], CACHED)
    report = place.project.replay()
    assert (named(report), report.different) == ({(Cause.LOST_WRITE, "card_days")}, 2)
    # The same log rows, but the cache is said to have read before the run, which would excuse it.
    alter_predictions(place, "read_start", lambda _: before, rows=range(10))
    reseal(*place.log_files())
    assert place.project.replay().ok


class ThreeOutputs(RuntimeBefore):
    """A runtime with three outputs."""

    def score(self, matrix: Matrix) -> Matrix:
        one = super().score(matrix)
        return np.column_stack([one, 1 - one, one * 0.5])


@pytest.fixture
def three(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> ServedModel:
    """The model, as if it had three outputs, for server and replay."""
    opened = []

    def load(store: PackageStore, name: str, version: str) -> ServedModel:
        opened.append(load_model(store, name, version))  # whose runtime is closed when it is let go
        return replace(opened[-1], runtime=ThreeOutputs(opened[-1].runtime, lambda matrix: matrix))

    monkeypatch.setattr("skewless.validation.replay.load_model", load)
    return replace(place.model, runtime=ThreeOutputs(place.model.runtime, lambda matrix: matrix))


def test_several_outputs_are_proven(place: Sandbox, three: ServedModel) -> None:
    answer = place.predict(ask(30), model=three)
    report = place.project.replay()
    assert report.ok, report.lines()
    (path,) = place.log_files()
    logged = pq.read_table(path)
    assert logged["scores"].to_pylist() == answer.scores.tolist()
    assert logged["score"].to_pylist() == answer.scores.max(axis=1).tolist()


def test_altered_outputs(place: Sandbox, three: ServedModel) -> None:
    answer = place.predict(ask(10), model=three)
    alter_predictions(place, "scores", lambda scores: [scores[0], scores[1], flipped(scores[2], 0)], rows=[4])
    alter_predictions(place, "scores", lambda scores: [scores[1], scores[0], scores[2]], rows=[5])
    alter_predictions(place, "score", lambda score: flipped(score, 1), rows=[6])
    report = place.project.replay()
    assert (named(report), report.different) == ({(Cause.LOGGED_VALUE, "checksum")}, 3)
    assert report.findings.predictions == set(answer.ids[4:7])


def test_outputs_that_the_model_does_not_give(place: Sandbox, three: ServedModel) -> None:
    runtime = ThreeOutputs(place.model.runtime, lambda matrix: matrix[:, ::-1].copy())
    place.predict(ask(20), model=replace(three, runtime=runtime))
    report = place.project.replay()
    assert named(report) == {(Cause.SCORE, MODEL)}
    assert report.different > 0
