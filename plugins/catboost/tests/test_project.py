"""A project whose model CatBoost trains: trained, served, predicted, explained and proven."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import catboost
import pytest

from skewless.client import Client
from skewless.infra.models.packages.served_model import load_model
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.project import Project
from tests.worlds.command_line import done
from tests.worlds.payments_data import write_payments

MAIN = "from skewless.cli import main; main()"
KIND = 'algorithm="lightgbm"'
PARAMS = 'params={"num_leaves": 15, "learning_rate": 0.1, "min_data_in_leaf": 20}'


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The payments project with a champion that CatBoost trained, whose statistics are of the cards' countries."""
    repo = tmp_path_factory.mktemp("catboost") / "shop"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKEWLESS_THREADS", "1")
        patch.setenv("SKEWLESS_PORT", "0")
        write_payments(repo)
        models = repo / "models.py"
        text = models.read_text()
        assert KIND in text
        assert PARAMS in text
        other = 'params={"depth": 4, "learning_rate": 0.1, "one_hot_max_size": 2}'
        models.write_text(text.replace(KIND, 'algorithm="catboost"').replace(PARAMS, other))
        done("apply", "--repo", repo)
        done("materialize", "--repo", repo)
        (trained,) = done("train", "--repo", repo)["models"]
        assert trained["promoted"]
        yield repo
        PrivateServer(repo / ".skewless").stop()


ASKED = [
    {"card_id": 9_007_199_254_740_993 + at, "shop_id": f"shop-{at % 40:02}", "amount": 1.5 * at, "paid_at": at}
    for at in range(40)
]


# In make test, test_walk.py has a server that scores as commands do; it opens models of all libraries alike.
@pytest.mark.soak
def test_what_is_served_is_predicted(repo: Path) -> None:
    command = [sys.executable, "-c", MAIN, "serve", "--repo", str(repo), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["url"]
            with Client(url) as client:
                served = [item.score for item in client.predict(ASKED, model="fraud")]
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert [item["score"] for item in predict(repo)] == served


def predict(repo: Path) -> list[dict[str, Any]]:
    predictions: list[dict[str, Any]] = done("predict", "fraud", "--row", json.dumps(ASKED), "--repo", repo)[
        "predictions"
    ]
    return predictions


def test_what_is_predicted_is_explained_and_proven(repo: Path) -> None:
    together = predict(repo)
    alone = [
        done("predict", "fraud", "--row", json.dumps([row]), "--repo", repo)["predictions"][0] for row in ASKED[:3]
    ]
    assert [item["score"] for item in alone] == [item["score"] for item in together[:3]]
    assert len({item["score"] for item in together}) > 5
    body = done("replay", "--repo", repo)
    assert (body["different"], body["ok"]) == (0, True)
    assert body["compared"] >= len(ASKED)
    why = done("why", alone[0]["id"], "--repo", repo)
    assert why["proof"]["ok"]
    parts = [feature["contribution"] for feature in why["features"]]
    assert sum(parts) + why["bias"] == pytest.approx(why["margin"])
    assert any(parts)


# In make test, test_tree_exports.py exports models of CatBoost.
@pytest.mark.soak
def test_the_model_is_exported_to_c(repo: Path, tmp_path: Path) -> None:
    body = done("export", "fraud", "--to", "c", "--out", tmp_path / "fraud-c", "--repo", repo)
    scores = body["certificate"]["scores"]
    assert scores["rows"] > 1_000
    assert scores["different"] == 0


def test_the_package_is_certified_and_has_statistics_of_categories(repo: Path) -> None:
    model = load_model(Project(repo).store, "fraud", "000001")
    assert model.certificate.bit_equal
    assert model.certificate.runtime_id.startswith("catboost-by-lightgbm-capi-")
    assert model.package.about["library"] == f"catboost {catboost.__version__}"
    statistics = json.loads(model.package.model_file.read_bytes())["features_info"]["ctrs"]
    assert {item["ctr_type"] for item in statistics} <= {"Borders", "Counter"}
    model.runtime.close()
