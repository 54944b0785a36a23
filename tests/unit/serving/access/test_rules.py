"""Which scope a route asks for; which addresses nobody else can reach."""

from __future__ import annotations

import pytest

from skewless.contract.loopback import is_loopback
from skewless.serving.access.needs import scope_of

BEYOND = ["0.0.0.0", "::", "", "*", "::ffff:0.0.0.0", "::ffff:10.0.0.1"]  # noqa: S104 - no socket is opened
BEYOND += ["10.0.0.1", "192.168.1.1", "fe80::1", "127.0.0.256", "1", " 127.0.0.1"]
BEYOND += ["example.org", "127.0.0.1.example.org", "localhost.example.org"]


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [
        ("GET", "/health/live", "nothing"),
        ("HEAD", "/v2/health/ready", "nothing"),
        ("GET", "/v2/health/live", "nothing"),
        ("POST", "/health/live", "admin"),
        ("GET", "/health/live/", "key"),
        ("GET", "/health/other", "key"),
        ("GET", "/metrics", "page"),
        ("GET", "/openapi.json", "page"),
        ("GET", "/docs", "page"),
        ("GET", "/docs/swagger-ui.css", "page"),
        ("GET", "/docsx", "key"),
        ("POST", "/docs/swagger-ui.css", "admin"),
        ("GET", "/models", "key"),
        ("GET", "/v2/models/fraud/ready", "key"),
        ("POST", "/predict", "predict"),
        ("POST", "/predict/", "admin"),
        ("POST", "/v2/models/fraud/infer", "predict"),
        ("POST", "/v2/models/fraud/versions/000001/infer", "predict"),
        ("POST", "/v2/models/a/b/infer", "admin"),
        ("POST", "/v2/models/fraud/infer\n", "admin"),
        ("POST", "/events/departures", "feedback"),
        ("POST", "/push", "feedback"),
        ("POST", "/v2/repository/index", "key"),
        ("POST", "/v2/repository/models/fraud/load", "admin"),
        ("POST", "/models/fraud/rollback", "admin"),
        ("DELETE", "/models/fraud", "admin"),
        ("PUT", "/predict", "admin"),
        ("OPTIONS", "/predict", "admin"),
        ("get", "/health/live", "admin"),
    ],
)
def test_what_a_request_needs(method: str, path: str, need: str) -> None:
    assert scope_of(method, path) == need


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.0.9", "::1", "localhost", "LocalHost", "::ffff:127.0.0.1"])
def test_an_address_of_this_machine_alone(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", BEYOND)
def test_an_address_that_others_may_reach(host: str) -> None:
    assert not is_loopback(host)
