"""Every difference from the Open Inference Protocol that docs/oip.md lists is there, and is asked for here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugins.oip.tests.test_protocol import INFER, entities, infer, post, refusal, vectors
from skewless_oip.signature import Signature
from tests.docs.pages import page, section, table
from tests.servers.prediction import PredictionServer
from tests.unit.serving.standing_in import model
from tests.worlds.trained import MODEL, ask, opened_copy, serving

ROW = ask(1)
ENTITIES = entities(ROW)


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PredictionServer]:
    with opened_copy(trained, tmp_path_factory.mktemp("differences") / "p") as place, serving(place.repo) as server:
        yield server


def metadata(server: PredictionServer) -> dict[str, Any]:
    found: dict[str, Any] = server.get(f"/v2/models/{MODEL}")
    return found


def outputs(server: PredictionServer, **asked: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
    found: list[dict[str, Any]] = infer(server, {"inputs": ENTITIES, **asked})["outputs"]
    return found


def fewer_outputs(server: PredictionServer) -> None:
    assert [item["name"] for item in outputs(server)] == ["score"]
    assert len(metadata(server)["outputs"]) > 5


def platform(server: PredictionServer) -> None:
    assert metadata(server)["platform"] == "lightgbm"


def parameters(server: PredictionServer) -> None:
    assert outputs(server, parameters={"unknown": {"of": ["any", "type"]}})
    assert isinstance(metadata(server)["parameters"]["vectors"], list | dict)


def other_inputs(server: PredictionServer) -> None:
    assert "features" not in {item["name"] for item in metadata(server)["inputs"]}
    (score,) = infer(server, {"inputs": [vectors(np.zeros((1, 6)))]})["outputs"]
    assert score["shape"] == [1]


def other_datatypes(server: PredictionServer) -> None:
    (of_amount,) = [item for item in metadata(server)["inputs"] if item["name"] == "amount"]
    amount = {"name": "amount", "shape": [1], "datatype": "INT8", "data": [7]}
    asked = [item for item in ENTITIES if item["name"] != "amount"]
    assert of_amount["datatype"] == "FP64"
    assert infer(server, {"inputs": [*asked, amount]})["outputs"]


def nulls(server: PredictionServer) -> None:
    (values,) = infer(
        server,
        {"inputs": entities([{**ROW[0], "shop_id": None, "amount": None}]), "outputs": [{"name": "feature_values"}]},
    )["outputs"]
    assert None in values["data"]
    text = json.dumps({"inputs": [{**vectors(np.zeros((1, 6))), "data": [float("nan"), float("inf"), 0, 0, 0, 0]}]})
    assert "NaN" in text
    assert post(server, INFER, text.encode())[0] == 200


def no_empty_dimension(server: PredictionServer) -> None:
    empty = [{**item, "shape": [0], "data": []} for item in ENTITIES]
    assert refusal(server, json.dumps({"inputs": empty}).encode())[0] == 400
    deep = [{**item, "shape": [1] * 9} for item in ENTITIES]
    assert refusal(server, json.dumps({"inputs": deep}).encode())[0] == 400


def short_version(server: PredictionServer) -> None:
    assert "1" not in server.get(f"/v2/models/{MODEL}/versions")["versions"]
    found = infer(server, {"inputs": ENTITIES}, f"/v2/models/{MODEL}/versions/1/infer")
    assert found["model_version"] == "000001"


def several_versions(_: PredictionServer) -> None:
    head = Signature(model()).merged_head(None, 1, ["000001", "000002"], degraded=False, narrow=False)
    found = json.loads(head[:-1] + b"}")
    assert "model_version" not in found
    assert found["parameters"]["model_versions"]


def errors(server: PredictionServer) -> None:
    status, sentence = refusal(server, json.dumps({"inputs": ENTITIES}).encode(), "/v2/models/none/infer")
    assert (status, " Fix: " in sentence) == (404, True)


def not_ready(server: PredictionServer) -> None:
    assert server.ask("GET", "/v2/models/none/ready")[0] == 404


def statistics(server: PredictionServer) -> None:
    outputs(server)
    (stats,) = server.get(f"/v2/models/{MODEL}/stats")["model_stats"]
    found = stats["inference_stats"]
    assert found["success"]["count"] > 0
    assert {found[name]["count"] for name in ("queue", "compute_input", "compute_infer", "compute_output")} == {0}


SHOWN: dict[str, Callable[[PredictionServer], None]] = {
    "A request that names no outputs gets all of them.": fewer_outputs,
    "`platform` is `<project>_<format>`.": platform,
    "Parameters are strings, numbers or booleans.": parameters,
    "Inputs are those of the metadata.": other_inputs,
    "An input has the datatype of the metadata.": other_datatypes,
    "Data are numbers, strings or booleans.": nulls,
    "A dimension may be 0.": no_empty_dimension,
    "A version is what the metadata list.": short_version,
    "`model_version` names what answered.": several_versions,
    "An error is status 400 and `error`.": errors,
    "A model that is not ready answers 4xx to `ready`.": not_ready,
    "Statistics tell queue, input, inference and output apart.": statistics,
}


def test_every_difference_that_is_listed_is_shown_here() -> None:
    rows = table(section(page("oip.md"), "Where it differs from the specification"), "the specification", "here")
    assert [row["the specification"] for row in rows] == list(SHOWN)


@pytest.mark.parametrize("rule", SHOWN)
def test_a_difference_is_there(rule: str, server: PredictionServer) -> None:
    SHOWN[rule](server)
