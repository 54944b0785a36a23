"""Two Feast projects in one real server: Feast's own stores and ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from feast import FeatureStore

from tests.servers.node import Node
from tests.worlds.feast_repo import tear_down
from tests.worlds.feast_twins import Kind, Twin, configure

Make = Callable[..., Twin]


@pytest.fixture
def make(tmp_path: Path, valkey: Node) -> Make:
    """Write a project of a kind; all of one test have one name, unless they ask for another."""
    name = f"t{uuid4().hex}"

    def configured(kind: Kind, **more: Any) -> Twin:  # noqa: ANN401 - lines of YAML
        return configure(kind, tmp_path / more.get("project", "") / kind, valkey.port, **{"project": name, **more})

    return configured


@pytest.fixture
def opened() -> Iterator[Callable[[Twin], FeatureStore]]:
    """Open projects that are torn down after the test."""
    stores: list[FeatureStore] = []

    def open_store(twin: Twin) -> FeatureStore:
        stores.append(twin.store())
        return stores[-1]

    yield open_store
    for store in stores:
        tear_down(store)
