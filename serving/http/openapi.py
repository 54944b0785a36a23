"""What the OpenAPI document says beyond what FastAPI finds by itself: bodies, keys, an example that is answered."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from infra.served_model import ServedModel
from serving.access.rules import scope_of
from skewless.columns import Column
from skewless.dtypes import DType

_SCHEMES: Mapping[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key of `skewless keys add`"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "the same in a header"},
}
_EITHER: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
_EXAMPLES: Mapping[DType, Any] = {
    DType.BOOL: True,
    DType.STRING: "a",
    DType.BYTES: "a",
    DType.FLOAT32: 1.5,
    DType.FLOAT64: 1.5,
    DType.TIMESTAMP: "2026-01-15T12:00:00Z",
}


def body_of(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """Return what a route adds to the document for a body that our own code parses."""
    schema = model.model_json_schema()
    plain = _inlined(schema, schema.get("$defs", {}))
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": plain}}}}


def describe_api(app: FastAPI) -> None:
    """Have an application's document say which routes take keys."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = copy.deepcopy(plain())
        document.setdefault("components", {})["securitySchemes"] = dict(_SCHEMES)
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                free = scope_of(method.upper(), path) == "nothing"
                operation["security"] = [] if free else _EITHER
        return document

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's way to extend it


def describe_example(app: FastAPI, model: Callable[[], ServedModel | None]) -> None:
    """Have the document of an application that serves say how a served model is asked.

    Args:
        app: was given to `describe_api`.
        model: returns one that is served now; None: there is none.
    """
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()
        if (found := model()) is not None:
            content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
            content["example"] = example_of(found)
        return document

    app.openapi = described  # type: ignore[method-assign]  # as above


def example_of(model: ServedModel) -> dict[str, Any]:
    """Return a request to ``/predict`` that a model answers; its entity need not exist."""
    columns = (*model.plan.join_keys, *model.plan.request)
    return {"model": model.name, "rows": [{column.name: _example(column) for column in columns}]}


def _example(column: Column) -> object:
    return _EXAMPLES.get(column.dtype, 1)


def _inlined(node: Any, parts: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Return a schema with its parts where they are referred to: the document knows those of FastAPI only."""
    if isinstance(node, list):
        return [_inlined(item, parts) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(parts[node["$ref"].rpartition("/")[2]], parts)
    return {key: _inlined(value, parts) for key, value in node.items() if key != "$defs"}
