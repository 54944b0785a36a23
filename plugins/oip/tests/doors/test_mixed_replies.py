"""Requests whose rows several versions answer, through both ways in and both protocols."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from lightgbm import Booster

from plugins.oip.tests.doors.test_lanes import INFER, infer
from skewless.client.replies import read_reply
from skewless.contract.traffic import TrafficPolicy, entity_position
from skewless.infra.models.packages.package import open_package
from skewless_oip.routes import OipRoutes
from tests.integration.serving.core.doors import Door, Doors, opened_doors
from tests.integration.serving.core.test_doors import body
from tests.worlds.trained import MODEL, Sandbox, ask

N = 40
ONE, TWO = "000001", "000002"
WHO = ["card_id"]
VERSIONS = [TWO if entity_position("s", [row["card_id"]]) < 0.5 else ONE for row in ask(N)]


@pytest.fixture(scope="module")
def policed(shared: Sandbox) -> Iterator[Sandbox]:
    """The shared project under a policy, which ends with these tests."""
    traffic = shared.project.store.traffic
    canary = TrafficPolicy(
        number=0, phase="canary", champion=ONE, challenger=TWO, share=0.5, sticky=("card_id",), salt="s"
    )
    traffic.replace(MODEL, canary, expect=None)
    yield shared
    traffic.replace(MODEL, TrafficPolicy(number=0, phase="champion", champion=ONE), expect=1)


@pytest.fixture(scope="module")
def doors(policed: Sandbox) -> Iterator[Doors]:
    with opened_doors(policed, added={"oip": OipRoutes()}) as doors:
        yield doors


def post(door: Door, path: str, sent: bytes, status: int = 200) -> Any:  # noqa: ANN401 - JSON
    reply = door.ask("POST", path, sent)
    assert reply.status == status, reply.body
    return json.loads(reply.body)


def outputs(reply: Any) -> dict[str, list[Any]]:  # noqa: ANN401 - JSON
    return {item["name"]: item["data"] for item in reply["outputs"]}


def named(*names: str) -> list[dict[str, str]]:
    return [{"name": name} for name in names]


@pytest.mark.parametrize("features", [False, True])
def test_each_row_names_the_version_that_answered_it(doors: Doors, features: bool) -> None:  # noqa: FBT001 - a parameter
    whole = [post(doors.fast, "/predict", body(N, version=version, features=features)) for version in (ONE, TWO)]
    alone = dict(zip((ONE, TWO), (reply["predictions"] for reply in whole), strict=True))
    for door in (doors.fast, doors.slow):
        found = post(door, "/predict", body(N, features=features))
        assert (found["version"], found["model"], found["degraded"]) == (None, MODEL, False)
        assert [item["version"] for item in found["predictions"]] == VERSIONS
        for i, item in enumerate(found["predictions"]):
            same = alone[item["version"]][i]
            assert item == {**same, "id": item["id"], "version": item["version"]}
    reply = read_reply(found)
    assert (reply.version, [item.version for item in reply.predictions]) == (None, VERSIONS)


def test_a_request_that_one_version_answers_looks_as_ever(doors: Doors) -> None:
    for i in (VERSIONS.index(ONE), VERSIONS.index(TWO)):
        sent = json.dumps({"model": MODEL, "rows": ask(1, i) * 3}).encode()
        found = post(doors.fast, "/predict", sent)
        assert found["version"] == VERSIONS[i]
        assert all(item.keys() == {"id", "score"} for item in found["predictions"])


def test_the_protocol_names_the_version_of_each_row(doors: Doors) -> None:
    names = named("score", "version", "feature_values")
    alone = {v: outputs(post(doors.fast, f"/v2/models/{MODEL}/versions/{v}/infer", infer(N))) for v in (ONE, TWO)}
    found = post(doors.fast, INFER, infer(N, outputs=names))
    assert (found["id"], found["model_name"], "model_version" in found) == ("mine", MODEL, False)
    assert sorted(found["parameters"]["model_versions"].split(",")) == [ONE, TWO]
    said = outputs(found)
    assert said["version"] == VERSIONS
    assert said["score"] == [alone[version]["score"][i] for i, version in enumerate(VERSIONS)]
    shapes = {item["name"]: item["shape"] for item in found["outputs"]}
    assert shapes["feature_values"][0] == N
    values = post(doors.fast, f"/v2/models/{MODEL}/versions/1/infer", infer(N, outputs=named("feature_values")))
    np.testing.assert_array_equal(said["feature_values"], outputs(values)["feature_values"])


def test_the_head_of_a_reply_names_the_version_that_answered(doors: Doors) -> None:
    for i in (VERSIONS.index(ONE), VERSIONS.index(TWO)):
        row = ask(1, i)[0]
        kinds = {"card_id": "INT64", "shop_id": "BYTES", "amount": "FP64", "paid_at": "INT64"}
        inputs = [{"name": n, "datatype": kind, "shape": [1], "data": [row[n]]} for n, kind in kinds.items()]
        found = post(doors.fast, INFER, json.dumps({"inputs": inputs, "outputs": named("version")}).encode())
        assert (found["model_version"], outputs(found)["version"]) == (VERSIONS[i], [VERSIONS[i]])
        assert found["parameters"]["model_version"] == VERSIONS[i]


def test_whole_vectors_and_named_versions_are_not_routed(doors: Doors, policed: Sandbox) -> None:
    width = len(policed.model.assembler.labels)
    vectors = [{"name": "features", "datatype": "FP64", "shape": [N, width], "data": [0.5] * (N * width)}]
    found = post(doors.fast, INFER, json.dumps({"inputs": vectors, "outputs": named("version")}).encode())
    assert outputs(found)["version"] == [ONE] * N
    assert post(doors.fast, "/predict", body(N, version="1"))["version"] == ONE


def test_leaves_are_those_of_each_rows_version_or_of_the_champion_in_one_tensor(doors: Doors, policed: Sandbox) -> None:
    versions = {version: open_package(policed.project.store, MODEL, version) for version in (ONE, TWO)}
    trees = {version: Booster(model_file=str(package.model_file)).num_trees() for version, package in versions.items()}
    found = post(doors.fast, "/predict", body(N, leaves=True))["predictions"]
    assert [len(item["leaves"]) for item in found] == [trees[version] for version in VERSIONS]
    reply = post(doors.fast, INFER, infer(N, outputs=named("version", "leaves")))
    assert outputs(reply)["version"] == [ONE] * N
    assert [item["shape"] for item in reply["outputs"]] == [[N], [N, trees[ONE]]]


def test_a_wrong_row_is_the_callers_doing_and_counts_for_no_arm(doors: Doors) -> None:
    rows = [*ask(N), {**ask(1)[0], "amount": "much"}]
    found = post(doors.fast, "/predict", json.dumps({"model": MODEL, "rows": rows}).encode(), 400)
    assert "amount" in found["error"]["message"]
    text = doors.fast.ask("GET", "/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith("skewless_arm_failures_total{")]
    assert len(lines) == 2
    assert all(line.endswith(" 0.0") for line in lines)


def test_the_policy_is_shown(doors: Doors) -> None:
    shown = json.loads(doors.fast.ask("GET", f"/models/{MODEL}").body)
    assert shown["versions"] == [ONE, TWO]
    assert {name: shown["traffic"][name] for name in ("number", "phase", "challenger", "share", "sticky")} == {
        "number": 1,
        "phase": "canary",
        "challenger": TWO,
        "share": 0.5,
        "sticky": WHO,
    }
