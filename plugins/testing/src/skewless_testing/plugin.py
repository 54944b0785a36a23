"""The pytest plugin: fixtures for tests of a project's features.

Heavy imports wait for the fixtures: pytest loads this module in every run of an environment that has skewless.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from skewless.contract.plan import FeaturePlan
    from skewless_testing.feature_case import FeatureCase

_INI = "skewless_project"
_DEFINITIONS = "definitions.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the ini option with the project's folder."""
    parser.addini(_INI, f"Folder of the skewless project; default: the nearest one with a {_DEFINITIONS}.")


@pytest.fixture(scope="session")
def feature_plan(pytestconfig: pytest.Config) -> FeaturePlan:
    """Return the compiled plan of the project; it is compiled once per session."""
    from skewless.infra.definitions.compiler.compile import compile_repo  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's, about itself; a test run may turn warnings into errors
        return compile_repo(_project_folder(pytestconfig)).plan


@pytest.fixture
def features(feature_plan: FeaturePlan) -> FeatureCase:
    """Return an empty case: add events and rows to it, then ask for vectors."""
    from skewless_testing.feature_case import FeatureCase  # noqa: PLC0415

    return FeatureCase(feature_plan)


def _project_folder(config: pytest.Config) -> Path:
    option = config.getini(_INI)
    if option:
        return (config.rootpath / str(option)).resolve()
    for start in (config.rootpath, config.invocation_params.dir):
        for folder in (start, *start.parents):
            if (folder / _DEFINITIONS).is_file():
                return folder
    pytest.fail(
        f"skewless project: is missing, no folder from {config.rootpath} upwards has a {_DEFINITIONS}."
        f" Fix: set the ini option {_INI} to the project's folder",
        pytrace=False,
    )
