"""The projects and lanes of the core's tests, on servers that have the routes of the protocol, too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from skewless_oip.routes import OipRoutes
from tests.integration.serving.core.conftest import links, shared, trained
from tests.integration.serving.core.doors import Doors, opened_doors
from tests.worlds.trained import Sandbox

__all__ = ["doors", "links", "shared", "trained"]


@pytest.fixture(scope="module")
def doors(shared: Sandbox) -> Iterator[Doors]:
    """Both lanes of a server of the shared project."""
    with opened_doors(shared, added={"oip": OipRoutes()}) as doors:
        yield doors
