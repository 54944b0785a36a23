"""The OpenAPI document resolves, says which routes take keys, and allows what the server takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from plugins.oip.tests.doors.bodies import ROUTES, Raw, replaced, text_of
from tests.integration.serving.core.doors import Connection, Doors
from tests.worlds.trained import MODEL

ODD: list[object] = [None, True, -1, 0, 0.5, "", "x", [], {}, [[]], [{}], [1], {"x": 1}, 10**17]
TEMPLATES = {
    f"/v2/models/{MODEL}/infer": "/v2/models/{name}/infer",
    f"/v2/models/{MODEL}/versions/1/infer": "/v2/models/{name}/versions/{version}/infer",
    f"/v2/repository/models/{MODEL}/load": "/v2/repository/models/{name}/load",
}
DESCRIBED = ["/predict", "/feedback", "/push", "/v2/repository/index", *TEMPLATES]


@pytest.fixture(scope="module")
def document(doors: Doors) -> dict[str, Any]:
    reply = doors.fast.ask("GET", "/openapi.json")
    assert reply.status == 200
    found: dict[str, Any] = json.loads(reply.body)
    return found


def content(document: dict[str, Any], path: str) -> dict[str, Any]:
    operation = document["paths"][TEMPLATES.get(path, path)]["post"]
    found: dict[str, Any] = operation["requestBody"]["content"]["application/json"]
    return found


def validator(document: dict[str, Any], path: str) -> Draft202012Validator:
    return Draft202012Validator({**content(document, path)["schema"], "components": document["components"]})


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for item in node.values():
            yield from references(item)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        place: Any = document
        assert reference.startswith("#/")
        for name in reference[2:].split("/"):
            place = place[name]


def test_every_route_but_health_takes_a_key_either_way(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"].keys() == {"bearer", "apiKey"}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["security"] == ([] if "/health/" in path else [{"bearer": []}, {"apiKey": []}]), path


def test_the_example_of_predict_is_answered(doors: Doors, document: dict[str, Any]) -> None:
    example = content(document, "/predict")["example"]
    reply = doors.fast.ask("POST", "/predict", json.dumps(example).encode())
    assert reply.status == 200, reply.body


@pytest.mark.parametrize("share", [3, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("path", DESCRIBED)
def test_what_the_schema_refuses_the_server_refuses(
    doors: Doors, document: dict[str, Any], path: str, share: int
) -> None:
    """The other way round it need not be so: a schema knows no models, nor their fields.

    Each place has a third of the values, and each value is in a third of the places; in the soak, all are in all.
    """
    schema = validator(document, path)
    link = Connection(doors.fast)
    refused = 0
    for value in ROUTES[path]:
        for turn, odd in enumerate(ODD):
            for body in islice(replaced(value, odd), turn % share, None, share):
                text = text_of(body)
                if isinstance(body, Raw) or "NaN" in text or "Infinity" in text:
                    continue
                reply = link.post(path, text.encode(), {"Content-Type": "application/json"})
                if not schema.is_valid(json.loads(text)):
                    refused += 1
                    assert 400 <= reply.status < 500, (text, reply.body)
    assert refused > 3
    link.close()


@pytest.mark.parametrize("path", DESCRIBED)
def test_what_the_server_takes_the_schema_allows(document: dict[str, Any], path: str) -> None:
    schema = validator(document, path)
    for value in ROUTES[path]:
        if "NaN" not in text_of(value) and "Infinity" not in text_of(value):
            schema.validate(json.loads(text_of(value)))


def test_no_request_declares_a_sink_or_changes_a_plan_or_a_list(document: dict[str, Any]) -> None:
    """A new route that writes is added here on purpose, and to the table of scopes in security.md."""
    writing = {
        (method, path)
        for path, methods in document["paths"].items()
        for method in methods
        if method not in {"get", "head"}
    }
    assert writing == {
        ("post", path)
        for path in (
            *("/predict", "/push", "/feedback", "/events/{source}", "/models/refresh", "/models/{name}/rollback"),
            *("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer", "/v2/repository/index"),
            *("/v2/repository/models/{name}/load", "/v2/repository/models/{name}/unload"),
        )
    }
