"""docs/security.md: the scopes that exist, and for every route the one that it needs."""

from __future__ import annotations

import re

from skewless.infra.platform.access.api_keys import SCOPES
from skewless.serving.access.needs import scope_of
from skewless.serving.app import create_app
from tests.docs.pages import names, page, table
from tests.docs.test_reference import described_server, routes_of

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


def check_undocumented(routes: set[str]) -> None:
    """Check that routes that are not in the table need what its last lines say."""
    rest = {request: need_of(request) for request in routes - documented().keys()}
    assert rest == {request: "key" if request.startswith("GET ") else "admin" for request in rest}


def test_every_scope_is_documented() -> None:
    assert [names(row["scope"]) for row in table(page("security.md"), "scope", "allows")] == [[s] for s in SCOPES]


def test_what_the_table_says_is_the_rule() -> None:
    told = documented()
    assert len(told) > 10
    assert told == {request: need_of(request) for request in told}


def test_a_route_that_is_not_in_the_table_needs_what_its_last_lines_say() -> None:
    routes = routes_of(create_app(described_server()))
    check_undocumented(routes)
    core = {request for request in documented() if " /v2" not in request}
    assert core - routes == {"GET /docs", "GET /openapi.json"}
