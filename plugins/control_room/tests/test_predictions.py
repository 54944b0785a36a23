"""The pages of predictions: what they say, that it is what the commands say, and what they do not know."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugins.control_room.tests.shown_pages import NOWHERE, read_empty, show
from skewless.contract.errors import RequestError, ScopeError
from skewless.contract.feedback import Outcome
from skewless.infra.records.outcomes.log import OutcomeWriter, outcome_spool
from skewless.infra.records.predictions.search import find_prediction
from skewless.operations.predictions.similar import find_similar
from skewless.operations.predictions.why import why
from skewless.project import Project
from skewless.validation.similar import gower_distances, spreads_of
from skewless_control_room.page import Known, Part, Query, Unknown
from skewless_control_room.pages.prediction import PAGE, Missing, PredictionAnswer, read_prediction
from skewless_control_room.pages.predictions import PAGE as LIST_PAGE
from skewless_control_room.pages.predictions import SHOWN, read_predictions
from tests.worlds.hostile_text import MARKUP
from tests.worlds.planted import alter_predictions, flipped
from tests.worlds.trained import MODEL, Sandbox, ask, open_project


def known(part: Part[Any]) -> Any:  # noqa: ANN401 - of any part
    assert isinstance(part, Known), part
    return part.value


def query_of(name: str, **values: str) -> Query:
    return Query(path={"prediction": name}, values=values)


def answer_of(project: Project, name: str) -> PredictionAnswer:
    found = known(read_prediction(project, query_of(name)).answer)
    assert isinstance(found, PredictionAnswer)
    return found


def shown(project: Project, name: str) -> str:
    return show(project, PAGE, f"/predictions/{name}", query_of(name))


def test_a_prediction_has_the_facts_of_the_command(place: Sandbox) -> None:
    place.wait(60)
    name = place.predict(ask(40)).ids[3]
    found, said = answer_of(place.project, name), why(place.project, name)
    assert found.facts.score == said.explanation.score
    assert (found.facts.role, found.facts.t_us) == ("champion", said.facts["t"])
    assert found.facts.keys == {name: str(value) for name, value in said.explanation.inputs.items() if "_id" in name}
    assert found.facts.reads == said.explanation.reads
    explained = known(found.explained)
    assert explained.features == said.explanation.features
    assert explained.bound == (said.bound and said.bound.line())
    assert known(found.similar) == said.similar
    assert known(found.similar).compared == 39
    verdict = known(found.proof)
    assert (verdict.state, verdict.lines[0]) == ("proven", said.proof and said.proof.lines()[0])
    html = shown(place.project, name)
    assert "Proven: vector and score are equal, bit for bit." in html
    assert "not known yet" in html


def test_the_nearest_prediction_is_one_with_the_same_values(place: Sandbox) -> None:
    place.wait(60)
    row = ask(1)[0]
    first = place.predict([row, *ask(20, first=5)]).ids[0]
    twin = place.predict([row]).ids[0]
    similar = known(answer_of(place.project, twin).similar)
    assert similar.nearest is not None
    assert (similar.nearest.id, similar.nearest.distance, similar.nearest.differences) == (first, 0.0, [])
    assert (similar.decision, similar.other_decision) == (None, None)  # the model has no decisions


def test_the_nearest_with_another_decision_is_the_nearest_of_those(place: Sandbox) -> None:
    place.wait(60)
    scored = place.predict(ask(40))
    middle = float(np.median(scored.scores))
    spec = replace(place.model.package.spec, decisions={"low": 0.0, "high": middle})
    model = replace(place.model, package=replace(place.model.package, spec=spec))
    for i, name in enumerate(scored.ids[:5]):
        entry = find_prediction(place.project.state, place.project.connection, name).entry
        assert entry is not None
        similar = find_similar(place.project, model, entry)
        other = similar.other_decision
        assert other is not None
        is_high = scored.scores >= middle
        assert similar.decision == ("high" if is_high[i] else "low")
        assert other.decision == ("low" if is_high[i] else "high")
        spreads = spreads_of(model.package.profile["features"], model.assembler.labels)
        parts = gower_distances(scored.matrix[i], scored.matrix, spreads, model.assembler.categorical)
        distances = parts.mean(axis=1)
        assert other.distance == distances[is_high != is_high[i]].min()
        assert distances[scored.ids.index(other.id)] == other.distance
        largest = max(other.differences, key=lambda item: item.distance)
        assert largest == other.differences[0]
        assert largest.distance == parts[scored.ids.index(other.id)].max()


def test_an_outcome_is_shown_once_it_is_known(place: Sandbox) -> None:
    place.wait(60)
    name = place.predict(ask(2)).ids[0]
    place.wait(10)
    outcome = Outcome(prediction_id=name, label=1.0, value=-12.5, known_at=place.now_us())
    writer = OutcomeWriter(outcome_spool(place.project.state))
    writer.append([outcome], received_at=place.now_us(), source="http")
    found = known(answer_of(place.project, name).outcome)
    assert (found.label, found.value) == (1.0, -12.5)
    assert "business value -12.5" in shown(place.project, name)


def test_an_altered_prediction_is_not_proven(place: Sandbox) -> None:
    place.wait(60)
    name = place.predict(ask(4)).ids[0]
    alter_predictions(place, "score", lambda score: flipped(score, 0))
    assert known(answer_of(place.project, name).proof).state == "different"
    html = shown(place.project, name)
    assert "Different: this prediction cannot be computed again" in html
    assert "logged_value" in html


def test_what_needs_the_package_is_unknown_without_it(place: Sandbox) -> None:
    place.wait(60)
    name = place.predict(ask(4)).ids[0]
    assert isinstance(answer_of(place.project, name).explained, Known)
    place.model.package.model_file.write_text("altered")  # after it was opened
    found = answer_of(place.project, name)
    assert {type(part) for part in (found.explained, found.proof, found.similar)} == {Unknown}
    assert isinstance(found.outcome, Known)
    assert len(found.facts.reads) > 0
    assert "Proven" not in shown(place.project, name)


def test_a_log_that_cannot_be_read_is_unknown(place: Sandbox) -> None:
    place.wait(60)
    name = place.predict(ask(4)).ids[0]
    for file in place.log_files():
        file.unlink()
    assert isinstance(read_prediction(place.project, query_of(name)).answer, Unknown)
    assert isinstance(read_predictions(place.project, Query()).predictions, Unknown)
    assert "Not known:" in shown(place.project, name)
    assert "Not known:" in show(place.project, LIST_PAGE, "/predictions")


def test_a_database_that_is_unavailable_is_unknown(place: Sandbox) -> None:
    with open_project(place.repo, database_url=NOWHERE["database"]) as project:
        assert isinstance(read_prediction(project, query_of("x-1")).answer, Unknown)
        found = read_predictions(project, Query())
        assert isinstance(found.predictions, Unknown)
        show(project, LIST_PAGE, "/predictions")
        shown(project, "x-1")


@pytest.mark.parametrize("texts", [["".join(MARKUP)], pytest.param(MARKUP, marks=pytest.mark.soak)])
def test_a_prediction_that_was_not_found_says_where_it_was_searched(place: Sandbox, texts: list[str]) -> None:
    place.wait(60)
    place.predict(ask(4))
    for name in ("529985b27312-1", "19ad1f7c2e0-8c81a2f7-1f", *texts):
        found = known(read_prediction(place.project, query_of(name)).answer)
        assert found == Missing(id=name, looked=4, total=4)
        assert "is not in the part of the log that was read" in shown(place.project, name)
    with pytest.raises(RequestError, match="too long"):
        read_prediction(place.project, query_of("x" * 1_000_000))
    with pytest.raises(RequestError, match="is unknown"):
        read_prediction(place.project, query_of("x", look="<b>"))


def test_an_empty_project_has_no_predictions(tmp_path: Path) -> None:
    with read_empty(tmp_path / "p") as project:
        found = known(read_predictions(project, Query()).predictions)
        assert (found.rows, found.total, found.next_page) == ([], 0, None)
        assert "The log has no predictions." in show(project, LIST_PAGE, "/predictions")
        assert "is not in the part of the log" in shown(project, "x-1")


def test_the_list_shows_the_latest_of_the_models_that_the_reader_may_see(place: Sandbox) -> None:
    place.wait(60)
    names = place.predict(ask(SHOWN + 5)).ids
    first = known(read_predictions(place.project, Query()).predictions)
    assert len(first.rows) == SHOWN
    assert first.next_page is not None
    rest = known(read_predictions(place.project, Query(values={"page": first.next_page})).predictions)
    assert sorted(row.id for row in (*first.rows, *rest.rows)) == sorted(names)
    other = Query(models=frozenset({"other"}))
    assert known(read_predictions(place.project, other).predictions).rows == []
    assert known(read_predictions(place.project, other).models) == []
    with pytest.raises(ScopeError):
        read_predictions(place.project, Query(values={"model": MODEL}, models=frozenset({"other"})))
    with pytest.raises(ScopeError):
        read_prediction(place.project, Query(path={"prediction": names[0]}, models=frozenset({"other"})))
    assert names[-1] in show(place.project, LIST_PAGE, "/predictions", Query(values={"model": MODEL}))


@pytest.mark.parametrize("place_of_list", ["[", "{}", '["a", 1]', "[1, 2, 3]", "<script>"])
def test_a_page_of_the_list_that_does_not_exist_is_unknown(place: Sandbox, place_of_list: str) -> None:
    assert isinstance(read_predictions(place.project, Query(values={"page": place_of_list})).predictions, Unknown)


@pytest.mark.parametrize("texts", [["".join(MARKUP)], pytest.param(MARKUP, marks=pytest.mark.soak)])
def test_hostile_keys_and_inputs_stay_text(place: Sandbox, texts: list[str]) -> None:
    place.wait(60)
    rows = [ask(1)[0] | {"shop_id": text} for text in ("x" * 1_000_000, *texts, *MARKUP)]
    names = place.predict(rows).ids[: 1 + len(texts)]
    show(place.project, LIST_PAGE, "/predictions")
    for name in names:
        html = shown(place.project, name)
        assert "\u202e" not in html
        assert json.dumps("x" * 5_000)[1:-1] not in html
