"""The Open Inference Protocol over a real socket: the same scores as `/predict` and as the library, to the bit."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from tests.servers.prediction import PredictionServer
from tests.worlds.trained import MODEL, NOW, Row, Sandbox, ask, opened_copy, serving
from tests.worlds.waiting import eventually

INFER = f"/v2/models/{MODEL}/infer"
DATATYPES = {"card_id": "INT64", "shop_id": "BYTES", "amount": "FP64", "paid_at": "INT64"}
Matrix = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def place(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with opened_copy(trained, tmp_path_factory.mktemp("oip") / "p") as place:
        yield place


@pytest.fixture(scope="module")
def server(place: Sandbox) -> Iterator[PredictionServer]:
    with serving(place.repo, SKEWLESS_LOG_FLUSH_SECONDS="0.05") as server:
        yield server


def post(server: PredictionServer, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a reply."""
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    try:
        connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def infer(server: PredictionServer, body: dict[str, Any], path: str = INFER) -> dict[str, Any]:
    status, headers, text = post(server, path, json.dumps(body).encode())
    assert (status, headers["content-type"]) == (200, "application/json"), text
    found: dict[str, Any] = json.loads(text)
    return found


def refusal(server: PredictionServer, body: bytes, path: str = INFER, **headers: str) -> tuple[int, str]:
    """Return status and sentence of a refusal, which has the protocol's shape."""
    status, told, text = post(server, path, body, **headers)
    error = json.loads(text)
    assert error.keys() == {"error"}
    assert told["content-type"] == "application/json"
    return status, error["error"]


def entities(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": [len(rows)], "datatype": datatype, "data": [row[name] for row in rows]}
        for name, datatype in DATATYPES.items()
    ]


def vectors(matrix: Matrix) -> dict[str, Any]:
    return {"name": "features", "shape": list(matrix.shape), "datatype": "FP64", "data": matrix.tolist()}


def arrays(reply: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:
    kinds = {"FP64": np.float64, "BYTES": object, "BOOL": np.bool_, "INT32": np.int32}
    return {
        item["name"]: np.array(item["data"], dtype=kinds[item["datatype"]]).reshape(item["shape"])
        for item in reply["outputs"]
    }


def test_entities_score_as_predict_does(server: PredictionServer) -> None:
    rows = ask(100)
    wanted = {"features": True, "contributions": True, "leaves": True, "as_of": NOW}
    status, _, text = post(server, "/predict", json.dumps({"rows": rows, **wanted}).encode())
    assert status == 200, text
    mine = json.loads(text)
    names = ["score", "feature_values", "feature_age_s", "feature_status", "feature_stale", "contributions", "leaves"]
    reply = infer(
        server,
        {"id": "7", "inputs": entities(rows), "outputs": [{"name": n} for n in names], "parameters": {"as_of": NOW}},
    )
    found = arrays(reply)
    predictions = mine["predictions"]
    assert list(found) == names
    assert found["score"].tolist() == [item["score"] for item in predictions]
    for i, item in enumerate(predictions):
        assert [None if np.isnan(v) else v for v in found["feature_values"][i]] == list(item["features"].values())
        views = item["views"].values()
        assert found["feature_status"][i].tolist() == [view["status"] for view in views]
        assert found["feature_stale"][i].tolist() == [view["stale"] for view in views]
        assert [None if np.isnan(v) else v for v in found["feature_age_s"][i]] == [view["age_s"] for view in views]
        assert found["contributions"][i].tolist() == list(item["contributions"].values())
        assert found["leaves"][i].tolist() == item["leaves"]
    assert (reply["id"], reply["model_name"], reply["model_version"]) == ("7", MODEL, mine["version"])
    lineage = reply["parameters"]
    assert (lineage["t_us"], lineage["log"], lineage["degraded"]) == (mine["t_us"], mine["log"], mine["degraded"])
    described = server.get(f"/models/{MODEL}")
    assert (lineage["model_version"], lineage["plan_hash"]) == (described["version"], described["plan_hash"])


def test_vectors_score_as_the_library_does_even_where_a_float32_would_not(
    server: PredictionServer, place: Sandbox
) -> None:
    booster = lightgbm.Booster(model_file=str(place.model.package.model_file))
    thresholds = booster.trees_to_dataframe()["threshold"].dropna()
    rng = np.random.default_rng(5)
    matrix = rng.choice(np.array([*map(float, thresholds), np.nan, 0.0, -0.0, 5e-324, 1e300]), size=(60, 6))
    matrix[:, 2] = rng.choice([0.0, 1.0, 99.0, np.nan], size=60)
    expected = booster.predict(matrix, num_threads=1)
    found = arrays(infer(server, {"inputs": [vectors(matrix)]}))["score"]
    assert found.tolist() == np.asarray(expected).tolist()


def test_infinities_come_through_as_bare_words_and_in_binary(server: PredictionServer, place: Sandbox) -> None:
    matrix = np.array([[np.inf, -np.inf, 0.0, np.nan, np.inf, 1.0]])
    expected = float(lightgbm.Booster(model_file=str(place.model.package.model_file)).predict(matrix)[0])
    assert arrays(infer(server, {"inputs": [vectors(matrix)]}))["score"].tolist() == [expected]
    item = {"name": "features", "shape": [1, 6], "datatype": "FP64", "parameters": {"binary_data_size": 48}}
    text = json.dumps({"inputs": [item], "parameters": {"binary_data_output": True}}).encode()
    body = gzip.compress(text + matrix.tobytes())
    status, headers, reply = post(
        server, INFER, body, Content_Encoding="gzip", Inference_Header_Content_Length=str(len(text))
    )
    size = int(headers["inference-header-content-length"])
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    assert json.loads(reply[:size])["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert struct.unpack("<d", reply[size:]) == (expected,)


def test_what_is_missing_stays_missing(server: PredictionServer) -> None:
    row = ask(1)[0]
    inputs = entities([{**row, "shop_id": None, "amount": None}])
    outputs = [{"name": "feature_status"}, {"name": "feature_values"}]
    reply = infer(server, {"inputs": inputs, "outputs": outputs})
    found = arrays(reply)
    assert found["feature_status"].tolist() == [["PRESENT", "NOT_FOUND"]]
    assert np.isnan(found["feature_values"][0, [3, 5]]).all()
    assert "NaN" not in json.dumps(reply["outputs"])


def test_a_long_reply_is_packed_where_that_is_accepted(server: PredictionServer) -> None:
    body = json.dumps({"inputs": [vectors(np.arange(6_000.0).reshape(1_000, 6))]}).encode()
    _, plain, text = post(server, INFER, body)
    _, packed, small = post(server, INFER, body, Accept_Encoding="br, gzip")
    assert ("content-encoding" in plain, packed["content-encoding"]) == (False, "gzip")
    assert json.loads(gzip.decompress(small))["outputs"] == json.loads(text)["outputs"]
    assert len(small) < len(text)


ROW = ask(1)[0]


@pytest.mark.parametrize(
    ("name", "datatype", "data", "message"),
    [
        ("card_id", "FP64", [7.0], "row 0 key 'card_id': is not an integer"),
        ("card_id", "BOOL", [True], "key 'card_id': is not an integer"),
        ("card_id", "BYTES", ["7x"], "key 'card_id': is not an integer"),
        ("shop_id", "INT64", [7], "key 'shop_id': is not a string"),
        ("amount", "FP32", [1.5], "input 'amount': needs float64"),
        ("amount", "BYTES", ["1.5"], "field 'amount': is not a valid float64"),
        ("paid_at", "FP64", [0.0], "field 'paid_at': is not a valid timestamp"),
        ("paid_at", "BYTES", ["2026-01-15T12:00:00"], "add the zone"),
        ("amount", "FP64", ["x"], "input 'amount': element 0 is not a valid FP64"),
        ("amount", "FP64", [1.0, 2.0], "has 2 elements"),
    ],
)
def test_a_value_that_is_not_its_fields_is_refused(
    name: str, datatype: str, data: list[Any], message: str, server: PredictionServer
) -> None:
    inputs = [
        {**item, "datatype": datatype, "data": data} if item["name"] == name else item for item in entities([ROW])
    ]
    status, sentence = refusal(server, json.dumps({"inputs": inputs}).encode())
    assert status == 400
    assert message in sentence


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (entities([ROW])[:3], "input 'paid_at': is missing. Fix: send one tensor for each of card_id"),
        ([*entities([ROW]), vectors(np.zeros((1, 6)))], "the inputs: are entity keys and features at once"),
        ([{**entities([ROW])[0], "name": "card"}], "input 'card': is unknown"),
        ([vectors(np.zeros((1, 5)))], "input 'features': is not of shape [rows, 6]"),
        ([{**vectors(np.zeros((1, 6))), "datatype": "FP32"}], "input 'features': needs float64, which this datatype"),
        (entities([ROW])[:3] + entities([ROW, ROW])[3:], "the inputs: have different numbers of rows"),
        ([{**item, "shape": [1, 1, 1]} for item in entities([ROW])], "is not of shape [rows] or [rows, 1]"),
    ],
)
def test_tensors_that_are_neither_entities_nor_vectors_are_refused(
    inputs: list[Any], message: str, server: PredictionServer
) -> None:
    status, sentence = refusal(server, json.dumps({"inputs": inputs}).encode())
    assert (status, message in sentence) == (400, True), sentence


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"as_of": "yesterday"}, "'as_of'"),
        ({"as_of": 2**62}, "'as_of': is in the future"),
        ({"max_feature_age_s": -1}, "'max_feature_age_s'"),
        ({"timeout": "soon"}, "'timeout'"),
        ({"priority": 1}, "parameter 'priority': is not supported"),
        ({"sequence_id": "s"}, "parameter 'sequence_id': is not supported"),
        ({"binary_data_output": "yes"}, "'binary_data_output'"),
    ],
)
def test_a_parameter_that_is_not_valid_is_refused(
    parameters: dict[str, Any], message: str, server: PredictionServer
) -> None:
    status, sentence = refusal(server, json.dumps({"inputs": entities([ROW]), "parameters": parameters}).encode())
    assert (status, message in sentence) == (400, True), sentence


def test_parameters_that_mean_nothing_here_are_ignored(server: PredictionServer) -> None:
    parameters = {"headers": "x", "triton_enable": True, "timeout": 0, "priority": 0, "sequence_id": 0}
    assert infer(server, {"inputs": entities([ROW]), "parameters": parameters})["outputs"]


def test_ages_beyond_what_the_caller_accepts_are_stale(server: PredictionServer) -> None:
    asked = {"inputs": entities([ROW]), "outputs": [{"name": "feature_stale"}, {"name": "feature_age_s"}]}
    for limit in (1.0, 1e9):
        found = arrays(infer(server, {**asked, "parameters": {"max_feature_age_s": limit}}))
        assert found["feature_stale"].tolist() == (found["feature_age_s"] > limit).tolist()


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"Inference_Header_Content_Length": "x"}, 400, "Inference-Header-Content-Length: is not a length"),
        ({"Inference_Header_Content_Length": "9" * 30}, 400, "Inference-Header-Content-Length: is not a length"),
        ({"Inference_Header_Content_Length": "9999"}, 400, "request body: is truncated"),
        ({"Inference_Header_Content_Length": "5"}, 400, "request body: is not JSON"),
        ({"Content_Encoding": "br"}, 400, "Content-Encoding: is unknown"),
        ({"Content_Encoding": "gzip"}, 400, "request body: is not gzip"),
    ],
)
def test_headers_that_do_not_fit_the_body_are_refused(
    headers: dict[str, str], status: int, message: str, server: PredictionServer
) -> None:
    found = refusal(server, json.dumps({"inputs": entities([ROW])}).encode(), **headers)
    assert (found[0], message in found[1]) == (status, True), found


def test_a_body_that_inflates_beyond_the_limit_is_refused(server: PredictionServer) -> None:
    found = refusal(server, gzip.compress(bytes(9_000_000)), Content_Encoding="gzip")
    assert (found[0], "has more than 8388608 bytes, decompressed" in found[1]) == (413, True)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/none/infer", 404),
        (f"/v2/models/{MODEL}/versions/7/infer", 404),
        (f"/v2/models/{MODEL}/versions/x%20y/infer", 404),
        (f"/v2/models/{MODEL}/x/infer", 404),
        ("/v2/models//infer", 404),
        (f"/v2/models/{MODEL}", 405),
        ("/v2/nothing", 404),
        ("/v2/repository/models/none/load", 404),
        ("/v2/repository/models/a%20b/load", 404),
        ("/v2/repository/models/none/unload", 404),
    ],
)
def test_what_is_not_there_is_said_in_the_protocols_shape(path: str, status: int, server: PredictionServer) -> None:
    assert refusal(server, json.dumps({"inputs": entities([ROW])}).encode(), path)[0] == status


def test_replay_finds_what_was_asked_and_no_difference(server: PredictionServer, place: Sandbox) -> None:
    asked = {
        "inputs": entities(ask(20, first=7)),
        "outputs": [{"name": "score"}, {"name": "feature_values"}, {"name": "prediction_id"}],
    }
    first = arrays(infer(server, asked))
    again = arrays(infer(server, {**asked, "inputs": [vectors(first["feature_values"])]}))
    earlier = arrays(infer(server, {**asked, "parameters": {"as_of": NOW}}))
    assert again["score"].tolist() == first["score"].tolist()
    ids = {name for found in (first, again, earlier) for name in found["prediction_id"].tolist()}
    assert len(ids) == 60
    eventually(lambda: ids <= {name for file in place.log_files() for name in pq.read_table(file)["id"].to_pylist()})
    report = place.project.replay()
    assert (report.different, report.given >= 20, report.compared >= 60) == (0, True, True)


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"parameters": {"config": "{}"}}', b'{"parameters": {"version": 1}}'])
def test_a_load_request_of_another_shape_is_refused(body: bytes, server: PredictionServer) -> None:
    assert refusal(server, body, f"/v2/repository/models/{MODEL}/load")[0] == 400


def test_versions_are_loaded_beside_the_champion(server: PredictionServer, place: Sandbox) -> None:
    place.wait(60)
    place.train()
    old, new = "000001", "000002"

    def states() -> dict[str, str]:
        _, _, text = post(server, "/v2/repository/index", b"")
        return {item["version"]: item["state"] for item in json.loads(text)}

    assert states().keys() == {old, new}
    status, _, text = post(server, f"/v2/repository/models/{MODEL}/load", b'{"parameters": {"version": "2"}}')
    assert (status, json.loads(text)) == (200, {"name": MODEL, "version": new})
    assert states()[new] == "READY"
    for version, name in ((old, "1"), (new, "2"), (new, new)):
        path = f"/v2/models/{MODEL}/versions/{name}"
        body = json.dumps({"inputs": entities([ROW])}).encode()
        assert json.loads(post(server, f"{path}/infer", body)[2])["model_version"] == version
        assert server.get(f"{path}/config")["parameters"]["version"]["string_value"] == version
        assert server.get(f"{path}/ready") == {"name": MODEL, "ready": True}
        assert server.get(f"{path}/stats")["model_stats"][0]["version"] == version
    assert server.get(f"/v2/models/{MODEL}/versions") == {"name": MODEL, "versions": [old, new]}
    assert [item["version"] for item in server.get("/v2/models/stats")["model_stats"]] == [old, new]
    assert post(server, f"/v2/repository/models/{MODEL}/unload", b"")[0] == 200
    assert set(states().values()) == {"UNAVAILABLE"}
    assert json.loads(post(server, "/v2/repository/index", b'{"ready": true}')[2]) == []
    assert refusal(server, json.dumps({"inputs": entities([ROW])}).encode())[0] == 404
    assert post(server, f"/v2/repository/models/{MODEL}/load", b"")[0] == 200
    assert infer(server, {"inputs": entities([ROW])})["outputs"]
