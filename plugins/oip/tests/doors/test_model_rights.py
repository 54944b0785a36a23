"""Every route, asked by every kind of caller about every model: what is allowed equals a plain model written here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from plugins.oidc.tests.token_desk import KeysInMemory
from skewless.infra.records.outcomes.log import OutcomeLog
from skewless.serving.access.rates import TokenBucket
from skewless_oidc.provider_keys import Issuer
from skewless_oidc.tokens import TokenRules, TokenVerifier
from skewless_oip.routes import OipRoutes
from tests.integration.serving.core.conftest import SECOND
from tests.integration.serving.core.doors import ALL, SCOPES, Door, DoorReply, Doors, opened_doors
from tests.servers.identity_provider import AUDIENCE, Provider
from tests.worlds.trained import MODEL, NOW, Sandbox, ask

UNKNOWN = "none"
MODELS = (MODEL, SECOND, UNKNOWN)
EVERY = frozenset(SCOPES)
BOTH = frozenset({MODEL, SECOND})

# What each route needs: a scope, "key" for any caller, "nothing", or "page" (open on loopback, as here).
NEEDS = {
    "GET /health/live": "nothing",
    "GET /health/ready": "nothing",
    "GET /metrics": "page",
    "GET /models": "key",
    "GET /models/{name}": "key",
    "GET /models/{name}/check": "key",
    "GET /v2": "key",
    "GET /v2/health/live": "nothing",
    "GET /v2/health/ready": "nothing",
    "GET /v2/models/stats": "key",
    "GET /v2/models/{name}": "key",
    "GET /v2/models/{name}/config": "key",
    "GET /v2/models/{name}/ready": "key",
    "GET /v2/models/{name}/stats": "key",
    "GET /v2/models/{name}/versions": "key",
    "GET /v2/models/{name}/versions/{version}": "key",
    "GET /v2/models/{name}/versions/{version}/config": "key",
    "GET /v2/models/{name}/versions/{version}/ready": "key",
    "GET /v2/models/{name}/versions/{version}/stats": "key",
    "POST /events/{source}": "feedback",
    "POST /feedback": "feedback",
    "POST /models/refresh": "admin",
    "POST /models/{name}/rollback": "admin",
    "POST /predict": "predict",
    "POST /push": "feedback",
    "POST /v2/models/{name}/infer": "predict",
    "POST /v2/models/{name}/versions/{version}/infer": "predict",
    "POST /v2/repository/index": "key",
    "POST /v2/repository/models/{name}/load": "admin",
    "POST /v2/repository/models/{name}/unload": "admin",
}


@dataclass(frozen=True)
class Person:
    """A caller as the plain model sees it; ``credential`` is sent as it is, or names a key of the doors."""

    credential: str | None
    scopes: frozenset[str] = EVERY
    models: frozenset[str] | None = None


@dataclass(frozen=True)
class Crowd:
    """The doors, and who asks through them."""

    doors: Doors
    people: Mapping[str, Person]


@pytest.fixture(scope="module")
def crowd(shared: Sandbox) -> Iterator[Crowd]:
    provider = Provider(url="https://id.shop.example")
    provider.add_key("k")
    rules = TokenRules(issuers=(Issuer(url=provider.url),), audience=AUDIENCE, model_claim="models")
    tokens = TokenVerifier(rules, shared.now_us, max_age_s=1, new_bucket=lambda _, rate: TokenBucket(rate))
    tokens.keys = KeysInMemory(provider)  # type: ignore[assignment]

    def token(**claims: Any) -> str:  # noqa: ANN401 - JSON values
        return provider.sign("k", provider.claims(shared.now_us() / 1e6, **claims))

    words = " ".join(SCOPES)
    people = {
        "nobody": Person(None),
        "a stranger": Person("sk_stranger_" + "A" * 43),
        "all": Person(ALL),
        **{f"only {scope}": Person(scope, frozenset({scope})) for scope in SCOPES},
        "first": Person("first", models=frozenset({MODEL})),
        "second": Person("second", models=frozenset({SECOND})),
        "both": Person("both", models=BOTH),
        "absent": Person("absent", models=frozenset({UNKNOWN})),
        "token": Person(token(scope=words, models=["*"])),
        "token of one": Person(token(scope=words, models=[SECOND]), models=frozenset({SECOND})),
        "token of none": Person(token(scope=words), models=frozenset()),
        "token to predict": Person(token(models=MODEL), frozenset({"predict"}), frozenset({MODEL})),
        "token of a stranger": Person(token(aud="x")),
    }
    limited = {name: people[name].models or frozenset() for name in ("first", "second", "both", "absent")}
    with opened_doors(shared, limited, tokens, {"oip": OipRoutes()}) as doors:
        yield Crowd(doors, people)


def expected(person: Person, name: str, need: str, model: str | None) -> str:
    """Return what a request meets: the reason of a refusal, or ``reached``."""
    if need in {"nothing", "page"}:
        return "reached"
    if name in {"nobody", "a stranger", "token of a stranger"}:
        return "access"
    if need != "key" and need not in person.scopes:
        return "scope"
    if model is not None and person.models is not None and model not in person.models:
        return "scope"
    return "reached"


def met(reply: DoorReply) -> str:
    return {401: "access", 403: "scope"}.get(reply.status, "reached")


def row(model: str | None, **others: object) -> dict[str, object]:
    keys = {"card_id": str(ask(1)[0]["card_id"]), "shop_id": "shop-00"}
    given = {"model": model, "keys": keys, "event_time": NOW, "label": 1, **others}
    return {name: value for name, value in given.items() if value is not None}


def body_of(route: str, model: str) -> bytes | None:
    if route == "POST /predict":
        return json.dumps({"model": model, "rows": ask(1)}).encode()
    if route == "POST /feedback":
        return json.dumps({"feedback": [row(model)]}).encode()
    return b"{}" if route.startswith("POST") else None


def names_model(route: str) -> bool:
    return "{name}" in route or route in {"POST /predict", "POST /feedback"}


@pytest.mark.parametrize("route", NEEDS)
def test_every_caller_meets_what_the_model_says(crowd: Crowd, route: str) -> None:
    method, path = route.split(" ")
    door = crowd.doors.fast
    for model in MODELS if names_model(route) else (None,):
        for name, person in crowd.people.items():
            full = path.replace("{name}", model or "").replace("{version}", "1").replace("{source}", "payments")
            reply = door.ask(method, full, body_of(route, model or ""), key=person.credential)
            found = expected(person, name, NEEDS[route], model)
            assert met(reply) == found, (name, route, model, reply.body)
            if route.endswith("/unload") and found == "reached" and model != UNKNOWN:
                assert door.ask("POST", f"/v2/repository/models/{model}/load", b"").status == 200


@pytest.mark.parametrize("route", [route for route, need in NEEDS.items() if need == "predict"])
def test_the_application_answers_as_the_fast_lane(crowd: Crowd, route: str) -> None:
    method, path = route.split(" ")
    for model in MODELS:
        for name, person in crowd.people.items():
            full = path.replace("{name}", model).replace("{version}", "1")
            replies = [
                door.ask(method, full, body_of(route, model), key=person.credential)
                for door in (crowd.doors.fast, crowd.doors.slow)
            ]
            assert met(replies[0]) == met(replies[1]) == expected(person, name, "predict", model)
            assert replies[0].status == replies[1].status


def test_no_route_is_missing_here(crowd: Crowd) -> None:
    document = json.loads(crowd.doors.fast.ask("GET", "/openapi.json").body)
    assert {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods} == set(
        NEEDS
    )


def told(door: Door, person: Person, method: str, path: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads(door.ask(method, path, b"{}" if method == "POST" else None, key=person.credential).body)


def test_lists_show_the_models_of_the_caller_alone(crowd: Crowd) -> None:
    door = crowd.doors.fast
    for name, person in crowd.people.items():
        if expected(person, name, "key", None) == "access":
            continue
        visible = {model for model in (MODEL, SECOND) if person.models is None or model in person.models}
        listed = told(door, person, "GET", "/models")
        assert {item["model"] for item in listed["models"]} == visible
        stats = told(door, person, "GET", "/v2/models/stats")
        assert {item["name"] for item in stats["model_stats"]} == visible
        index = told(door, person, "POST", "/v2/repository/index")
        assert {item["name"] for item in index} == visible


def test_who_has_one_model_need_not_name_it_and_who_has_several_must(crowd: Crowd) -> None:
    for door in (crowd.doors.fast, crowd.doors.slow):
        body = json.dumps({"rows": ask(1)}).encode()
        one = door.ask("POST", "/predict", body, key=crowd.people["first"].credential)
        assert (one.status, json.loads(one.body)["model"]) == (200, MODEL)
        for name, says in (("both", "must name a model"), ("token of none", "may not use any model")):
            refused = door.ask("POST", "/predict", body, key=crowd.people[name].credential)
            assert refused.status == 403
            assert says in json.loads(refused.body)["error"]["problem"]


def test_a_refusal_does_not_say_whether_a_model_exists(crowd: Crowd) -> None:
    person = crowd.people["second"]
    texts = set()
    for model in (MODEL, UNKNOWN):
        for path in (f"/models/{model}", f"/v2/models/{model}/versions/9"):
            reply = crowd.doors.fast.ask("GET", path, key=person.credential)
            texts.add((reply.status, reply.body.replace(model.encode(), b"MODEL")))
    assert {status for status, _ in texts} == {403}
    assert len(texts) == 2  # one for each format of errors


def test_outcomes_by_id_are_tied_to_the_callers_model(crowd: Crowd) -> None:
    def send(name: str, *rows: dict[str, object]) -> int:
        body = json.dumps({"feedback": list(rows)}).encode()
        return crowd.doors.fast.ask("POST", "/feedback", body, key=crowd.people[name].credential).status

    by_id: dict[str, object] = {"prediction_id": "abc-0", "label": 1}
    assert send("all", by_id) == 202
    assert send("first", by_id) == 202
    assert send("first", {**by_id, "model": MODEL}) == 202
    assert send("both", {**by_id, "model": SECOND}) == 202
    assert send("both", by_id) == 403
    assert send("first", {**by_id, "model": SECOND}) == 403
    assert send("first", row(MODEL), row(SECOND)) == 403
    assert send("token of none", by_id) == 403
    project = crowd.doors.place.project
    written = OutcomeLog(project.state, project.connection).latest(2**62).to_pylist()
    assert {item["model"] for item in written if item["prediction_id"] == "abc-0"} == {None, MODEL, SECOND}
