"""The fixtures of the daily tests of this folder."""

from __future__ import annotations

from tests.integration.cli.conftest import (
    applied,
    clock_file,
    environment,
    new,
    places,
    projects,
    stages,
    unasked,
    walked,
)

__all__ = ["applied", "clock_file", "environment", "new", "places", "projects", "stages", "unasked", "walked"]
