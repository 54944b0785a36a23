"""docs/security.md: the scopes that exist, and for every route the one that it needs."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from skewless.infra.platform.access.api_keys import SCOPES
from skewless.serving.access.needs import scope_of
from skewless.serving.app import ServingContext, create_app
from skewless.serving.events import EventForwarder
from skewless.serving.http.feedback_routes import Feedback
from skewless.serving.metrics.metrics import Metrics
from tests.docs.pages import names, page, table

if TYPE_CHECKING:
    from skewless.serving.models.table import ModelTable
    from skewless.serving.prediction.predictor import Predictor

NEEDS = {
    "nothing": "nothing",
    "nothing on loopback, else any valid key": "page",
    "any valid key": "key",
    **{f"`{scope}`": scope for scope in SCOPES},
}


def documented() -> dict[str, str]:
    """Return what each request of the table needs."""
    rows = table(page("security.md"), "request", "needs")
    return {request: NEEDS[row["needs"]] for row in rows for request in names(row["request"]) if " " in request}


def need_of(request: str) -> str:
    """Return what a request needs by the rules; its names stand for themselves."""
    method, path = request.split(" ")
    return scope_of(method, re.sub(r"{\w+}", "x", path))


def routes() -> set[str]:
    """Return every route of the application."""
    app = create_app(
        ServingContext(
            models=cast("ModelTable", SimpleNamespace(all=list)),
            predictor=cast("Predictor", None),
            metrics=Metrics(),
            events=cast("EventForwarder", None),
            feedback=cast("Feedback", None),
            reload_seconds=1.0,
        )
    )
    return {f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods}


def test_every_scope_is_documented() -> None:
    assert [names(row["scope"]) for row in table(page("security.md"), "scope", "allows")] == [[s] for s in SCOPES]


def test_what_the_table_says_is_the_rule() -> None:
    told = documented()
    assert len(told) > 10
    assert told == {request: need_of(request) for request in told}


def test_a_route_that_is_not_in_the_table_needs_what_its_last_lines_say() -> None:
    rest = {request: need_of(request) for request in routes() - documented().keys()}
    assert rest == {request: "key" if request.startswith("GET ") else "admin" for request in rest}
    assert documented().keys() - routes() == {"GET /docs", "GET /openapi.json"}
