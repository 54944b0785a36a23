"""Both clients against ``skewless serve``: predictions equal to those in the process, and every other call."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from skewless.contract.errors import RequestError
from tests.integration.client.conftest import Connect
from tests.worlds.trained import MODEL, NOW, ask, opened_copy, serving


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[float]]]:
    """The URL of a server, and the scores of five rows as the project itself gives them."""
    with opened_copy(trained, tmp_path_factory.mktemp("client") / "p") as place:
        scores = place.project.predict(MODEL, ask(5))["score"].to_pylist()
        with serving(place.repo) as server:
            yield server.url, scores


def test_predictions_are_those_of_the_project(served: tuple[str, list[float]], connect: Connect) -> None:
    url, scores = served
    reply = connect(url).ask("predict", ask(5))
    assert (reply.model, reply.scores, reply.degraded) == (MODEL, scores, False)
    assert len({item.id for item in reply}) == 5


def test_one_row_with_what_the_model_saw(served: tuple[str, list[float]], connect: Connect) -> None:
    url, scores = served
    face = connect(url)
    item = face.ask("predict_one", ask(1)[0], model=MODEL, features=True)
    assert item.score == scores[0]
    assert tuple(item.features) == face.ask("model", MODEL).features
    assert {view.status for view in item.views.values()} <= {"PRESENT", "NOT_FOUND"}
    assert item.views["card_days"].age_s > 0


def test_every_option_is_understood(served: tuple[str, list[float]], connect: Connect) -> None:
    """The model is binary: feature by feature, contributions add up to the logit of the score."""
    url, scores = served
    row, face = ask(1)[0], connect(url)
    item = face.ask("predict_one", row, contributions=True, leaves=True, timeout_s=20.0)
    assert sum(item.contributions.values()) == pytest.approx(math.log(scores[0] / (1 - scores[0])))
    assert face.ask("predict_one", row, leaves=True).leaves == tuple(item.raw["leaves"])
    aged = face.ask("predict_one", row, features=True, max_feature_age_s=0.5)
    assert aged.views["card_days"].stale
    moment = datetime.fromtimestamp(NOW / 1e6 - 60, UTC)
    assert face.ask("predict", [row], as_of=moment).t == moment


def test_the_server_is_described(served: tuple[str, list[float]], connect: Connect) -> None:
    face = connect(served[0])
    assert (face.ask("live"), bool(face.ask("ready")), face.ask("ready").reasons) == (True, True, {})
    listed = face.ask("models")
    assert [(model.name, model.raw["task"]) for model in listed] == [(MODEL, "binary")]


def test_errors_are_the_servers(served: tuple[str, list[float]], connect: Connect) -> None:
    face = connect(served[0])
    with pytest.raises(RequestError, match=r"row 0.*amount"):
        face.ask("predict", [{**ask(1)[0], "amount": "much"}])
    with pytest.raises(RequestError, match="nobody"):
        face.ask("model", "nobody")


def test_many_at_once(served: tuple[str, list[float]], connect: Connect) -> None:
    url, scores = served
    replies = connect(url).ask_at_once(64, "predict", ask(5))
    assert [reply.scores for reply in replies] == [scores] * 64
