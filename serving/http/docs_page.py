"""``GET /docs``: the API in Swagger UI. The page and its assets come from this server, so it works without internet."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Response
from starlette.responses import FileResponse

from skewless.contract.errors import PlaceError

PATH = "/docs"
_PACKAGE = "fastapi_swagger"  # has a release of Swagger UI; no code of it is imported
_MEDIA_TYPES: Mapping[str, str] = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_START = "start.js"
# Addresses are relative, so that the page also works below the prefix of a gateway.
_PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>skewless: HTTP API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/{_START}"></script>
</body>
</html>
"""
# Without `validatorUrl: null` Swagger UI sends the address of the document to validator.swagger.io.
_SCRIPT = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
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


def add_docs_page(app: FastAPI) -> None:
    """Add the routes of the page and its assets; they are not part of the OpenAPI document."""

    @app.get(PATH, include_in_schema=False)
    async def page() -> Response:
        asset_folder()
        return Response(_PAGE, headers=_HEADERS, media_type="text/html")

    @app.get(f"{PATH}/{_START}", include_in_schema=False)
    async def start() -> Response:
        return Response(_SCRIPT, headers=_HEADERS, media_type="text/javascript")

    for name, media_type in _MEDIA_TYPES.items():
        _add_asset(app, name, media_type)


def _add_asset(app: FastAPI, name: str, media_type: str) -> None:
    @app.get(f"{PATH}/{name}", include_in_schema=False)
    async def asset() -> Response:
        return FileResponse(asset_folder() / name, headers=_HEADERS, media_type=media_type)


def asset_folder() -> Path:
    """Return the folder of Swagger UI's files.

    Raises:
        PlaceError: the package with the files is not installed.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PlaceError("package 'fastapi-swagger'", "is not installed", fix="pip install fastapi-swagger")
    return Path(spec.submodule_search_locations[0]) / "resources"
