"""Why a prediction was what it was: values, ages and parts against the library and the log."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import PackageError, RequestError
from skewless.contract.feedback import Outcome
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.outcomes.log import OutcomeWriter, outcome_spool
from skewless.operations.predictions.why import WhyReport, why
from tests.worlds.command_line import run
from tests.worlds.planted import alter_predictions, flipped
from tests.worlds.trained import FIRST_CARD, MODEL, Sandbox, ask, later_rows

MEAN = "card_days__mean_amount_7d"


def asked(place: Sandbox, n: int = 7, which: int = 3, *, proof: bool = False) -> tuple[str, WhyReport]:
    """Make n predictions and explain one of them."""
    name = place.predict(ask(n)).ids[which]
    return name, why(place.project, name, proof=proof)


def test_the_parts_are_those_of_the_library_and_sum_up_to_the_margin(place: Sandbox) -> None:
    place.predict(ask(4))
    name, found = asked(place)
    (row,) = [row for path in place.log_files() for row in pq.read_table(path).to_pylist() if row["id"] == name]
    booster = lightgbm.Booster(model_file=str(place.model.package.model_file))
    parts = booster.predict(np.array([row["vector"]]), pred_contrib=True)[0]
    explanation = found.explanation
    labels = place.model.assembler.labels
    assert {item.feature: item.contribution for item in explanation.features} == dict(
        zip(labels, parts[:-1].tolist(), strict=True)
    )
    assert explanation.bias == parts[-1]
    assert np.isclose(parts.sum(), explanation.margin)
    assert explanation.score == row["score"]
    weights = [abs(item.contribution or 0.0) for item in explanation.features]
    assert weights == sorted(weights, reverse=True)


def test_values_states_and_ages_are_those_of_the_log_row(place: Sandbox) -> None:
    _, found = asked(place)
    body = found.as_dict()
    assert body["inputs"]["card_id"] == FIRST_CARD + 3
    (path,) = (place.state / "log" / "batch").glob("card_days-*/*.parquet")
    read = next(read for read in found.explanation.reads if read.view == "card_days")
    (row,) = [row for row in pq.read_table(path).to_pylist() if row["__seq"] == read.position]
    assert (row["card_id"], row["__event_ts"], row["__run_id"]) == (FIRST_CARD + 3, read.event_us, read.run)
    (feature,) = [item for item in found.explanation.features if item.feature == MEAN]
    assert feature.value == row["mean_amount_7d"]
    assert feature.age_s == (body["t_us"] - row["__event_ts"]) / 1e6
    assert feature.status == ("NULL" if row["mean_amount_7d"] is None else "PRESENT")
    assert body["data"]["dataset"] == place.model.package.fingerprint["dataset"]
    assert body["code"]["plan"] == place.model.plan.hash


def test_each_feature_says_where_it_is_from(place: Sandbox) -> None:
    _, found = asked(place)
    states = {item.group: item.status for item in found.explanation.features if item.value is not None}
    computed = {item.name for item in place.model.plan.transforms}
    assert states == dict.fromkeys(computed, "COMPUTED") | dict.fromkeys(states.keys() - computed, "PRESENT")
    assert states.keys() > computed


def test_an_unknown_entity_shows_as_not_found(place: Sandbox) -> None:
    row = ask(1)[0] | {"card_id": -5}
    name = place.predict([row]).ids[0]
    features = why(place.project, name, proof=False).explanation.features
    of_card = [item for item in features if item.group == "card_days"]
    assert {(item.value, item.status, item.age_s) for item in of_card} == {(None, "NOT_FOUND", None)}


def test_a_value_outside_the_training_data_is_the_nearest_bound(place: Sandbox) -> None:
    row = ask(1)[0] | {"amount": 1e9}
    found = why(place.project, place.predict([row]).ids[0], proof=False)
    values = {item.feature: item.value for item in found.explanation.features}
    profile = place.model.package.profile["features"]
    assert found.bound is not None
    name = found.bound.feature
    assert (found.bound.side, found.bound.broken, found.bound.bound) == ("high", True, profile[name]["max"])
    assert found.bound.value == values[name] > profile[name]["max"]


def test_the_proof_is_that_of_the_one_prediction(place: Sandbox) -> None:
    name, found = asked(place, proof=True)
    assert found.proof is not None
    assert (found.proof.compared, found.proof.ok) == (1, True)
    alter_predictions(place, "score", lambda score: flipped(score, 0), rows=[3])
    broken = why(place.project, name).proof
    assert broken is not None
    assert not broken.ok
    assert why(place.project, name, proof=False).proof is None


def test_an_id_that_is_not_in_the_log_is_refused(place: Sandbox) -> None:
    for _ in range(2):
        with pytest.raises(RequestError, match="is not in the log"):
            why(place.project, "no-such")
        place.predict(ask(1))


def test_an_altered_package_explains_nothing(place: Sandbox) -> None:
    name = place.predict(ask(1)).ids[0]
    place.model.package.model_file.write_text("altered")
    with pytest.raises(PackageError):
        why(place.project, name)


def test_the_command_shows_every_feature_and_the_proof(place: Sandbox) -> None:
    name = place.predict(ask(3)).ids[1]
    said = run("why", name, "--repo", place.repo)
    assert said.code == 0, said
    assert all(label in said.stdout for label in place.model.assembler.labels)
    assert "1 prediction recomputed from the accepted log: all equal" in said.stdout
    body = run("why", name, "--repo", place.repo, "--json").body
    assert body["id"] == name
    assert body["proof"]["ok"]
    assert run("why", "none", "--repo", Path(place.repo)).code == 6


def test_what_came_of_a_prediction_is_told_once_it_is_known(place: Sandbox) -> None:
    name, found = asked(place)
    assert found.outcome is None
    place.wait(10)
    said = Outcome(prediction_id=name, label=1.0, value=-12.5, known_at=place.now_us())
    OutcomeWriter(outcome_spool(ProjectState(place.state))).append([said], received_at=place.now_us(), source="http")
    assert why(place.project, name, proof=False).outcome == {"label": 1.0, "value": -12.5, "known_at": said.known_at}
    shown = run("why", name, "--no-proof", "--repo", place.repo).stdout
    assert "label 1.0, business value -12.5" in shown


def test_a_declared_bound_is_named_before_the_training_data(place: Sandbox) -> None:
    version = place.project.train(MODEL).trained.package.version
    model = place.load(version)
    inside = why(place.project, place.predict(ask(1), model=model).ids[0], proof=False)
    assert inside.declared
    assert inside.bound is not None
    assert not inside.bound.broken
    assert inside.outside == []
    rows = later_rows(place, 1)
    many = pa.array([20_000] * rows.num_rows, rows.schema.field("payments_7d").type)
    place.publish(rows.set_column(rows.column_names.index("payments_7d"), "payments_7d", many))
    place.project.materialize(check=False)
    outside = why(place.project, place.predict(ask(1), model=model).ids[0], proof=False)
    assert outside.bound is not None
    assert (outside.bound.feature, outside.bound.bound) == ("card_days__payments_7d", 10_000)
    assert outside.bound.broken
    assert outside.outside == ["card_days__payments_7d = 20000.0: from 0 to 10000 was declared"]
