"""The chart of infra/deploy, for all its tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.chart import PYTHON, Chart, open_chart


@pytest.fixture(scope="session")
def chart() -> Iterator[Chart]:
    """The chart in the library of Helm."""
    if not PYTHON.exists():
        pytest.skip("no environment of deployment: `make setup-deploy` installs it")
    with open_chart() as chart:
        yield chart
