from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from skewless.contract.clock import SystemClock
from skewless.contract.errors import AccessError, DeadlineError, RequestError, SkewlessError, StoreError
from skewless.contract.policy import Policy
from skewless.contract.policy_runner import PolicyRunner, compile_policy
from skewless.infra.definitions.compiler.services import module_source
from skewless.serving.access.caller import Caller
from skewless.serving.http.hot_routes import Exchange, Header
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor as RealPredictor
from skewless_oip.infer_route import InferRoute
from skewless_oip.signature import OipModels
from tests.unit.serving.standing_in import PLAN, Predictor, model
from tests.worlds.payment_policy import act_on_list, act_otherwise

MODEL = model()
VECTORS = {"name": "features", "shape": [1, 3], "datatype": "FP64", "data": [1.0, 2.0, 3.0]}


class OneModel:
    def get(self, name: str | None, version: str | None = None) -> Any:  # noqa: ANN401 - a model
        if name != "m" or version not in {None, "1"}:
            raise RequestError("field 'model'", "is not a served model", value=name, fix="use m")
        return MODEL

    def routing(self, name: str) -> None:
        assert name == "m"


@dataclass
class RouteDesk:
    """A route, what it counts, and what it replied."""

    predictor: Predictor = field(default_factory=Predictor)
    metrics: Metrics = field(default_factory=Metrics)
    oip_models: OipModels = field(default_factory=OipModels)
    deadline_s: float = 0.0

    def ask(
        self,
        body: object,
        path: str = "/v2/models/m/infer",
        waited: float = 0.0,
        *,
        scopes: str = "predict",
        **headers: str,
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, JSON and headers of the reply."""
        replies: list[tuple[int, bytes, Sequence[Header]]] = []
        exchange = Exchange(
            method="POST",
            path=path,
            query=b"",
            headers=[(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            body=json.dumps(body).encode(),
            caller=Caller("key", "k", scopes=set(scopes.split())),
            send=lambda *reply: replies.append(reply),
        )
        exchange.waited_s = waited
        asyncio.run(self._handle(exchange))
        ((status, text, told),) = replies
        return status, json.loads(text), {name.decode(): value.decode() for name, value in told}

    async def _handle(self, exchange: Exchange) -> None:
        route = InferRoute(
            models=cast("ModelTable", OneModel()),
            oip_models=self.oip_models,
            predictor=cast("RealPredictor", self.predictor),
            metrics=self.metrics,
            clock=SystemClock(),
            body_bytes=10_000,
            deadline_s=self.deadline_s,
        )
        handler = route.find(exchange.path)
        assert handler is not None
        handler(exchange)


def test_a_request_is_answered_and_counted() -> None:
    desk = RouteDesk()
    status, reply, headers = desk.ask({"id": "7", "inputs": [VECTORS]})
    assert (status, reply["id"], reply["outputs"][0]["data"]) == (200, "7", [0.5])
    assert headers == {"content-type": "application/json"}
    counts = desk.oip_models.get(MODEL).counts
    assert (counts.rows, counts.executions, counts.successes, counts.failures, counts.last_us) == (1, 1, 1, 0, 10)
    shown = counts.statistics(MODEL)
    assert (shown.inference_count, shown.inference_stats.success.count, shown.inference_stats.fail.count) == (1, 1, 0)
    assert shown.inference_stats.success.ns > 0


@pytest.mark.parametrize(
    "path", ["/v2/models/m", "/v2/models/m/x/infer", "/v2/models/infer", "/models/m/infer", "/v2/models/a/b/c/d/infer"]
)
def test_other_paths_are_others(path: str) -> None:
    with pytest.raises(AssertionError):
        RouteDesk().ask({}, path)


def test_a_version_without_a_name_is_none_that_is_served() -> None:
    status, reply, _ = RouteDesk().ask({"inputs": [VECTORS]}, "/v2/models/m/versions//infer")
    assert (status, "outputs" in reply) == (404, False)


def test_a_version_may_be_named() -> None:
    assert RouteDesk().ask({"inputs": [VECTORS]}, "/v2/models/m/versions/1/infer")[0] == 200
    assert RouteDesk().ask({"inputs": [VECTORS]}, "/v2/models/m/versions/2/infer")[0] == 404


def test_vectors_get_no_null_in_place_of_an_action_that_needs_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    by_list = Policy(function=act_on_list, actions=("approve", "decline"), lists={"stolen": "id"})
    by_score = Policy(function=act_otherwise, actions=("refer",))

    def ask(policy: Policy, *outputs: str) -> tuple[int, Any]:
        runner = PolicyRunner("m", compile_policy("m", policy, PLAN, PLAN.services[0].name, module_source), PLAN)
        deciding = model(spec={"policy": runner.policy}, policy=runner)
        monkeypatch.setattr(OneModel, "get", lambda *_: deciding)
        body = {"inputs": [VECTORS]} | ({"outputs": [{"name": name} for name in outputs]} if outputs else {})
        status, reply, _ = RouteDesk().ask(body)
        return status, reply.get("error") or {each["name"]: each["data"] for each in reply["outputs"]}

    assert ask(by_score) == (200, {"score": [0.5], "decision": ["refer"]})
    for outputs in ((), ("decision",), ("score", "reasons")):
        status, error = ask(by_list, *outputs)
        assert (status, "cannot be given for vectors: the policy" in error) == (400, True)
        assert error.endswith("send the inputs of the metadata, or request other outputs by name, for example 'score'")
    assert ask(by_list, "score") == (200, {"score": [0.5]})


def test_another_time_needs_another_scope() -> None:
    body = {"inputs": [VECTORS], "parameters": {"as_of": "2026-01-01T00:00:00.0009Z"}}
    assert RouteDesk().ask(body)[0] == 403
    desk = RouteDesk()
    assert desk.ask(body, scopes="predict as_of")[0] == 200
    assert desk.predictor.asked[0].options.as_of == 1_767_225_600_000_000


def test_time_limits_are_on_the_loops_clock() -> None:
    cases: list[tuple[dict[str, int], float, float | None]] = [
        ({}, 0.0, None),
        ({"timeout": 0}, 0.0, None),
        ({"timeout": 2_000_000}, 0.0, 2.0),
        ({"timeout": 2_000_000}, 5.0, 2.0),
        ({"timeout": 0}, 5.0, 5.0),
        ({}, 5.0, 5.0),
    ]
    for parameters, default, expected in cases:
        desk = RouteDesk(deadline_s=default)
        began = time.monotonic()
        desk.ask({"inputs": [VECTORS], "parameters": parameters})
        deadline = desk.predictor.asked[0].options.deadline
        assert (deadline is None) == (expected is None)
        if deadline is not None and expected is not None:
            assert expected <= deadline - began < expected + 60


def test_contributions_are_asked_for_only_if_they_are_wanted() -> None:
    desk = RouteDesk()
    desk.ask({"inputs": [VECTORS]})
    _, reply, _ = desk.ask({"inputs": [VECTORS], "outputs": [{"name": "contributions"}]})
    desk.ask({"inputs": [VECTORS], "parameters": {"contributions": True}})
    desk.ask({"inputs": [VECTORS], "outputs": [{"name": "leaves"}]})
    assert [question.options.extras for question in desk.predictor.asked] == [(), ("contributions",), (), ("leaves",)]
    assert reply["outputs"][0]["shape"] == [1, 4]


@pytest.mark.parametrize("parameters", [{}, {"timeout": 3_000_000}])
def test_the_wait_for_a_turn_is_part_of_a_requests_time(parameters: dict[str, int]) -> None:
    desk = RouteDesk(deadline_s=3.0)
    for waited in (0.0, 2.0):
        before = time.monotonic()
        desk.ask({"inputs": [VECTORS], "parameters": parameters}, waited=waited)
        deadline = desk.predictor.asked[-1].options.deadline
        assert deadline is not None
        assert before + 3.0 - waited - 0.01 <= deadline <= time.monotonic() + 3.0 - waited


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (StoreError("Redis", "is away", fix="wait"), 503, {"retry-after": "1"}),
        (DeadlineError("model 'm'", "was too slow", fix="raise the timeout"), 504, {}),
        (RequestError("model 'm'", "has no contributions", fix="do not ask"), 400, {}),
        (AccessError("the request", "has no key", fix="send one"), 401, {"www-authenticate": "Bearer"}),
    ],
)
def test_what_goes_wrong_later_is_said_in_the_protocols_shape(
    error: SkewlessError, status: int, headers: dict[str, str]
) -> None:
    desk = RouteDesk(predictor=Predictor(error=error))
    found = desk.ask({"inputs": [VECTORS]})
    assert len(found[2].pop("x-request-id")) == 16
    assert found == (status, {"error": error.sentence()}, {"content-type": "application/json", **headers})
    assert desk.metrics.requests("m", "000001", error.kind).value == 1
    assert (desk.oip_models.get(MODEL).counts.failures, desk.oip_models.get(MODEL).counts.rows) == (1, 0)
