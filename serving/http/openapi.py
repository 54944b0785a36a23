"""Additions to FastAPI's OpenAPI document: bodies that our own code parses, API keys, and a working example.

``GET /docs`` shows it in Swagger UI. The page and its assets come from this server, so it works without internet.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from fastapi import FastAPI, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.responses import FileResponse

from skewless.contract.dtypes import DType
from skewless.contract.errors import PlaceError, RequestError
from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.access.needs import scope_of

_SCHEMES: Mapping[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "API key from `skewless keys add`, or a token."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key, in this header."},
}
_REF_PREFIX, _SCHEMAS_KEY = "#/components/schemas/", "x-schemas"
_ANY_SCHEME: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
_EXAMPLES: Mapping[DType, Any] = {
    DType.BOOL: True,
    DType.STRING: "a",
    DType.BYTES: "a",
    DType.FLOAT32: 1.5,
    DType.FLOAT64: 1.5,
    DType.TIMESTAMP: "2026-01-15T12:00:00Z",
}
PATH = "/docs"
_PACKAGE = "fastapi_swagger"  # has a release of Swagger UI; no code of it is imported
_MEDIA_TYPES: Mapping[str, str] = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
    "start.js": "text/javascript",
}
_OWN_FOLDER = Path(__file__).parent  # has docs.html and start.js
# Swagger UI sets styles in its markup, but needs no script in it, and no other host.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # after an update of the server the browser must not mix old and new files
}


class ErrorParts(BaseModel):
    """An error as one line, and in parts."""

    message: str = Field(description="The complete error in one line.")
    kind: str
    thing: str = Field(description="The kind and name of the thing with the problem.")
    problem: str = Field(description="The problem.")
    fix: str = Field(description="A way to solve the problem.")
    value: bool | int | str | None = Field(None, description="The invalid value, if the problem is a value.")


class ErrorReply(BaseModel):
    """Error reply of all routes, except for the Open Inference Protocol."""

    error: ErrorParts


# With a declared error model, FastAPI does not add its own one for validation errors.
ERRORS: Mapping[int | str, dict[str, Any]] = {"default": {"model": ErrorReply, "description": "Error"}}


class RequestBody:
    """A body that our own code parses, for speed. One pydantic model provides the schema and the rules of the check.

    Args:
        model: its checked fields are annotated with the text of the expected value, for error messages.
        required: whether each request must have a body.

    Attributes:
        names: field names, in order.
        openapi_extra: value for a route's ``openapi_extra``; ``describe_api`` moves its schemas to the components.
    """

    def __init__(self, model: type[BaseModel], *, required: bool = True) -> None:
        self.names = tuple(model.model_fields)
        self._fields: dict[str, tuple[tuple[type, ...], list[str]]] = {}
        for name, field in model.model_fields.items():
            expected = [item for item in field.metadata if isinstance(item, str)]
            self._fields[name] = json_types(field.annotation), expected
        schema = model.model_json_schema(ref_template=f"{_REF_PREFIX}{{model}}")
        parts = {**schema.pop("$defs", {}), model.__name__: schema}
        content = {"application/json": {"schema": {"$ref": f"{_REF_PREFIX}{model.__name__}"}}}
        self.openapi_extra = {"requestBody": {"required": required, "content": content}, _SCHEMAS_KEY: parts}

    def check(self, body: Mapping[str, object]) -> None:
        """Check the names and types of all fields; null means absent.

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
    """Return the Python types of the JSON values that an annotation allows, except for null.

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
    """Return the operation id of a route, which generated clients use as the function name.

    >>> operation_id(APIRoute("/models/{name}", print, methods=["GET"]))
    'get_models_name'
    """
    method = min(route.methods or ())
    return "_".join([method.lower(), *re.findall(r"\w+", route.path_format)])


def describe_api(app: FastAPI, model: Callable[[], ServedModel | None]) -> None:
    """Add the schemas of each `RequestBody`, the required API keys and an example to an application's OpenAPI document.

    Args:
        model: returns a model that is served now, for the example; None: no model is served.
    """
    original = app.openapi

    def extended() -> dict[str, Any]:
        # A copy, since FastAPI caches its own document.
        document = copy.deepcopy(original())
        components = document.setdefault("components", {})
        components["securitySchemes"] = dict(_SCHEMES)
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                is_public = scope_of(method.upper(), path) == "nothing"
                operation["security"] = [] if is_public else _ANY_SCHEME
                components["schemas"].update(operation.pop(_SCHEMAS_KEY, {}))
        if (served_model := model()) is not None:
            content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
            # A valid request; its entity does not have to exist.
            columns = (*served_model.plan.join_keys, *served_model.plan.request)
            row = {column.name: _EXAMPLES.get(column.dtype, 1) for column in columns}
            content["example"] = {"model": served_model.name, "rows": [row]}
        return document

    app.openapi = extended  # type: ignore[method-assign]  # FastAPI's way to extend it


def add_docs_page(app: FastAPI) -> None:
    """Add the routes of the page and its assets; they are not part of the OpenAPI document."""

    @app.get(PATH, include_in_schema=False)
    async def page() -> Response:
        asset_folder()
        return FileResponse(_OWN_FOLDER / "docs.html", headers=_HEADERS, media_type="text/html")

    for name, media_type in _MEDIA_TYPES.items():
        _add_asset(app, name, media_type)


def _add_asset(app: FastAPI, name: str, media_type: str) -> None:
    @app.get(f"{PATH}/{name}", include_in_schema=False)
    async def asset() -> Response:
        folder = _OWN_FOLDER if (_OWN_FOLDER / name).is_file() else asset_folder()
        return FileResponse(folder / name, headers=_HEADERS, media_type=media_type)


def asset_folder() -> Path:
    """Return the folder of Swagger UI's files.

    Raises:
        PlaceError: the package with the files is not installed.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PlaceError("package 'fastapi-swagger'", "is not installed", fix="pip install fastapi-swagger")
    return Path(spec.submodule_search_locations[0]) / "resources"
