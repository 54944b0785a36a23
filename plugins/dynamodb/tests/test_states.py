"""The contract of every online store for the states of windowed views, on DynamoDB."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

from skewless.infra.reads.online.port import OnlineStore
from tests.contract import test_tiles
from tests.contract.store import StorePlace

for _name, _test in inspect.getmembers(test_tiles, inspect.isfunction):
    if _name.startswith("test_") and "three_nodes" not in inspect.signature(_test).parameters:
        globals()[_name] = _test


@pytest.fixture
def store(online_place: StorePlace) -> Iterator[OnlineStore]:
    with online_place.store() as one:
        yield one
