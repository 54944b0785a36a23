"""What all reliability tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Write what was measured to the terminal, whatever becomes of the test."""

    def write(text: str) -> None:
        with capsys.disabled():
            sys.stderr.write(f"\n{request.node.name}: {text}\n")

    return write
