"""The check of each run of `make test`: the engine is registered, and without its library the error says so."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from skewless.contract.errors import DefinitionError
from skewless.contract.settings import Settings
from skewless.infra.platform.host.plugins import plugin_names
from skewless.infra.reads.engines.port import open_executor


def test_the_engine_is_registered_and_names_the_package_that_it_lacks() -> None:
    assert "ray" in plugin_names("skewless.engines")
    if find_spec("ray") is None:
        with pytest.raises(DefinitionError, match=r"cannot be imported.*install package 'skewless-ray'"):
            open_executor("ray", Settings())
