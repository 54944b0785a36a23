"""A real Redis-protocol server for the tests of a session; each test uses a project of its own name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.infra.online.private_server import PrivateServer


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    # A short path: the server listens on a socket file in its folder.
    with tempfile.TemporaryDirectory() as folder:
        server = PrivateServer(Path(folder), grace_s=0.5)
        yield server.ensure()
        server.stop()
