"""The routes of a platform in the application: also where it chooses paths that the server has."""

from __future__ import annotations

import warnings
from importlib.metadata import EntryPoints
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from skewless.contract.errors import DefinitionError, ScopeError
from skewless.contract.settings import Platform, Settings
from skewless.serving.access.caller import ON_PLATFORM
from skewless.serving.access.gate import OpenAccess, open_access
from skewless.serving.app import AddedRoutes, ServingContext, create_app, hot_routes
from skewless.serving.events import EventForwarder
from skewless.serving.http.feedback_routes import Feedback
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.platform import find_platform, open_routes
from skewless_platforms.contracts import PlatformContract
from skewless_platforms.route import PlatformRoute, PlatformRoutes

if TYPE_CHECKING:
    from skewless.infra.platform.access.api_keys import KeyStore, Scope
    from skewless.serving.models.table import ModelTable
    from skewless.serving.prediction.predictor import Predictor


def context(routes: AddedRoutes | None) -> ServingContext:
    """Return what the routes need; nothing of it is used."""
    return ServingContext(
        models=cast("ModelTable", SimpleNamespace(all=list)),
        predictor=cast("Predictor", None),
        metrics=Metrics(),
        events=cast("EventForwarder", None),
        feedback=cast("Feedback", None),
        reload_seconds=1.0,
        platform=routes,
    )


@pytest.mark.parametrize("paths", [("/predict", "/health/ready"), ("/score", "/"), ("/invocations", "/ping")])
def test_the_platform_has_its_paths_and_the_description_is_unchanged(paths: tuple[str, str]) -> None:
    serving = context(PlatformRoutes(PlatformContract(model=None, predict=paths[0], health=paths[1])))
    routes = hot_routes(serving)
    assert isinstance(getattr(routes.fixed[paths[0]], "__self__", None), PlatformRoute)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # FastAPI warns of two routes with one name
        document = create_app(serving, routes).openapi()
    assert document == create_app(context(None)).openapi()


def test_without_a_platform_there_is_no_route_more() -> None:
    assert list(hot_routes(context(open_routes("none", {}))).fixed) == ["/predict"]
    assert list(hot_routes(context(open_routes("kserve", {}))).fixed) == ["/predict"]


@pytest.mark.parametrize(
    ("option", "variables", "expected"),
    [
        (None, {}, "none"),
        ("azure", {"SKEWLESS_PLATFORM": "vertex"}, "azure"),
        (None, {"skewless_platform": "kserve"}, "kserve"),
    ],
)
def test_the_option_wins_over_the_variable(option: str | None, variables: dict[str, str], expected: Platform) -> None:
    assert find_platform(option, variables) == expected


def test_callers_of_a_platform_neither_change_the_server_nor_send_events() -> None:
    settings = Settings(platform="sagemaker", host="0.0.0.0")  # noqa: S104 - not opened
    access = open_access(settings, cast("KeyStore", None), lambda: 0)
    assert isinstance(access, OpenAccess)
    assert access.allow((), None) is ON_PLATFORM
    admitted: tuple[Scope | None, ...] = ("predict", "as_of", None)
    for needed in admitted:
        access.allow((), needed)
    refused: tuple[Scope, ...] = ("feedback", "admin")
    for scope in refused:
        with pytest.raises(ScopeError):
            access.allow((), scope)


def test_a_platform_that_is_not_installed_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.platform.host.plugins._entry_points", lambda *_: EntryPoints())
    assert open_routes("none", {}) is None
    with pytest.raises(DefinitionError, match=r"'sagemaker': is not installed.*pip install 'skewless\[platforms\]'"):
        open_routes("sagemaker", {})
