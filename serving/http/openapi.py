"""What the OpenAPI document says beyond what FastAPI finds by itself: bodies, keys, an example that is answered."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.infra.packages.served_model import ServedModel
from skewless.serving.access.rules import scope_of

_SCHEMES: Mapping[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key of `skewless keys add`"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "the same in a header"},
}
_PLACE, _PARTS = "#/components/schemas/", "x-schemas"
_EITHER: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
_EXAMPLES: Mapping[DType, Any] = {
    DType.BOOL: True,
    DType.STRING: "a",
    DType.BYTES: "a",
    DType.FLOAT32: 1.5,
    DType.FLOAT64: 1.5,
    DType.TIMESTAMP: "2026-01-15T12:00:00Z",
}


class ErrorParts(BaseModel):
    """An error, whole and in its parts."""

    message: str = Field(description="all of it in one line")
    kind: str
    thing: str = Field(description="what it is about")
    problem: str = Field(description="what is wrong with it")
    fix: str = Field(description="what to do about it")
    value: bool | int | str | None = Field(None, description="the offending value, where there is one")


class ErrorReply(BaseModel):
    """Every error of a route that follows no foreign protocol."""

    error: ErrorParts


# As long as a route says what its errors are, FastAPI does not invent another shape for them.
ERRORS: Mapping[int | str, dict[str, Any]] = {"default": {"model": ErrorReply, "description": "why not"}}


class ExpectedValue(NamedTuple):
    """Annotates a field of a request: what to send, as errors say it."""

    text: str


class RequestBody:
    """A body that our own code parses, since that is quicker: one model is the document's schema and the check's rules.

    Args:
        model: each field of a body that is checked is annotated with its ``ExpectedValue``.
        required: whether a request may come without it.

    Attributes:
        names: of its fields, in order.
        described: what a route adds to the document as ``openapi_extra``; ``describe_api`` takes it up.
    """

    def __init__(self, model: type[BaseModel], *, required: bool = True) -> None:
        self.names = tuple(model.model_fields)
        self._fields: dict[str, tuple[tuple[type, ...], list[str]]] = {}
        for name, field in model.model_fields.items():
            expected = [item.text for item in field.metadata if isinstance(item, ExpectedValue)]
            self._fields[name] = json_types(field.annotation), expected
        schema = model.model_json_schema(ref_template=f"{_PLACE}{{model}}")
        parts = {**schema.pop("$defs", {}), model.__name__: schema}
        content = {"application/json": {"schema": {"$ref": f"{_PLACE}{model.__name__}"}}}
        self.described = {"requestBody": {"required": required, "content": content}, _PARTS: parts}

    def check(self, body: Mapping[str, object]) -> None:
        """Refuse what the model does not have; null is as good as nothing.

        Raises:
            RequestError: a field is unknown or of the wrong type.
        """
        unknown = body.keys() - self._fields.keys()
        if unknown:
            fix = f"send {', '.join(self.names)}"
            raise RequestError("request body", "has an unknown field", value=min(unknown), fix=fix)
        for name, (kinds, expected) in self._fields.items():
            value = body.get(name)
            if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
                fix = f"send {expected[0]}"
                raise RequestError(f"request field {name!r}", "has the wrong type", value=value, fix=fix)


def json_types(annotation: object) -> tuple[type, ...]:
    """Return the types of the JSON values that an annotation allows, but for null.

    >>> json_types(list[str] | None), json_types(float), json_types(int | str)
    ((<class 'list'>,), (<class 'float'>, <class 'int'>), (<class 'int'>, <class 'str'>))
    """
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return tuple(kind for part in get_args(annotation) for kind in json_types(part))
    kind = get_origin(annotation) or annotation
    if kind is float:
        return (float, int)
    return (kind,) if isinstance(kind, type) and kind is not NoneType else ()


def operation_id(route: APIRoute) -> str:
    """Return the name of a route in the document, which is that of the function in a client made from it.

    >>> operation_id(APIRoute("/models/{name}", print, methods=["GET"]))
    'get_models_name'
    """
    method = min(route.methods or ())
    return "_".join([method.lower(), *re.findall(r"\w+", route.path_format)])


def describe_api(app: FastAPI) -> None:
    """Have an application's document hold the schemas of `RequestBody`, and say which routes take keys."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = copy.deepcopy(plain())
        components = document.setdefault("components", {})
        components["securitySchemes"] = dict(_SCHEMES)
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                free = scope_of(method.upper(), path) == "nothing"
                operation["security"] = [] if free else _EITHER
                components["schemas"].update(operation.pop(_PARTS, {}))
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
