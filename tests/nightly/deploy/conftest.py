"""The images, for all tests of deployment."""

from __future__ import annotations

import pytest

from tests.nightly.deploy.image import build_image


@pytest.fixture(scope="session")
def server_image() -> str:
    """The name of the server's image."""
    return build_image("server")


@pytest.fixture(scope="session")
def jobs_image() -> str:
    """The name of the image of all other programs."""
    return build_image("jobs")
