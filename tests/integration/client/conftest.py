"""A client of either kind, closed in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.integration.client.faces import FACES, Face

Connect = Callable[..., Face]


@pytest.fixture(params=FACES)
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Make clients: URLs, then what ``Client`` takes."""
    made: list[Face] = []

    def make(*urls: str, **settings: object) -> Face:
        made.append(FACES[request.param](*urls, **settings))
        return made[-1]

    yield make
    for face in made:
        face.close()
