"""Feast's configuration of a repo: what Feast refuses is refused, and what it accepts is registered as Feast does."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureStore
from feast.repo_config import load_repo_config

from skewless.contract.errors import DefinitionError
from skewless.infra.definitions.compiler.compile import compile_repo
from skewless.infra.definitions.compiler.feast_settings import UnreadOfflineStoreConfig, load_settings
from skewless.infra.definitions.plans.planning import Planner
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.engine import connect
from tests.worlds.edits import edit
from tests.worlds.payments_data import TEMPLATE, write_sample

NOW = 1_750_000_000_000_000
FILE = "feature_store.yaml"
STORE = "offline_store:\n  type: file\n"
REGISTRY = "registry: .skewless/registry.db\n"
OWN = "skewless_feast.offline_store.SkewlessOfflineStore"


@pytest.fixture
def configured_repo(tmp_path: Path) -> Path:
    """The sample project."""
    shutil.copytree(TEMPLATE, tmp_path / "repo")
    write_sample(tmp_path / "repo/data", NOW)
    return tmp_path / "repo"


@pytest.fixture
def configured_planner(configured_repo: Path) -> Iterator[Planner]:
    """Its planner."""
    with connect(configured_repo / "spill", threads=1) as connection:
        state = ProjectState(configured_repo / ".skewless")
        yield Planner(repo=configured_repo, state=state, connect=lambda: connection)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("type: file", "type: fil", "Offline Store Class 'fil'"),
        ("type: file", "type: file\n  path: data", "path\n  Extra inputs are not permitted"),
        ("type: file", "type: [file]", "unhashable type"),
        ("project: payments\n", "", "project\n  Field required"),
        ("project: payments\n", "project: _payments\n", "_payments, should only have alphanumerical"),
        (REGISTRY, "", "Registry"),
        ("online_store: null", "online_store: {type: redi}", "Online Store Class 'redi'"),
        ("provider: local", "auth: {type: none}", "invalid authentication type=none"),
    ],
)
def test_what_feast_refuses_is_refused_with_its_text(configured_repo: Path, old: str, new: str, says: str) -> None:
    edit(configured_repo, old, new, file=FILE)
    with pytest.raises(Exception, match=re.escape(says)) as feast:
        load_repo_config(configured_repo, configured_repo / FILE)
    with pytest.raises(DefinitionError, match=r"feature_store.yaml.* Fix: correct the Feast configuration") as ours:
        compile_repo(configured_repo)
    assert str(feast.value) in str(ours.value)


@pytest.mark.parametrize(
    "text",
    [
        STORE,
        "offline_store: file\n",
        "offline_store: dask\n",
        "offline_store: {type: dask}\n",
        "offline_store: {}\n",
        "",
    ],
)
def test_feasts_store_of_files_is_never_read(configured_repo: Path, text: str) -> None:
    edit(configured_repo, STORE, text, file=FILE)
    ours, feasts = load_settings(configured_repo), load_repo_config(configured_repo, configured_repo / FILE)
    assert isinstance(ours.offline_store, UnreadOfflineStoreConfig)
    assert type(feasts.offline_store).__name__ == "DaskOfflineStoreConfig"
    assert ours.model_dump(exclude={"offline_config"}) == feasts.model_dump(exclude={"offline_config"})


@pytest.mark.parametrize("text", [f"offline_store: {OWN}\n", f"offline_store: {{type: {OWN}, threads: 1}}\n"])
def test_another_store_is_that_of_the_configuration(configured_repo: Path, text: str) -> None:
    edit(configured_repo, STORE, text, file=FILE)
    assert type(load_settings(configured_repo).offline_store).__name__ == "SkewlessOfflineStoreConfig"


@pytest.mark.parametrize("registry", [REGISTRY, "registry: {registry_type: sql, path: 'sqlite:///%s/sql.db'}\n"])
def test_feast_registers_the_same_with_its_own_configuration(
    configured_repo: Path, configured_planner: Planner, registry: str
) -> None:
    edit(configured_repo, REGISTRY, registry.replace("%s", str(configured_repo)), file=FILE)
    configured_planner.apply(NOW)
    registered = _registered(configured_repo)
    assert {"card", "card_days", "payment_time"} <= registered.keys()
    FeatureStore(str(configured_repo)).apply(list(compile_repo(configured_repo).feast_objects))
    assert _registered(configured_repo) == registered


def _registered(repo: Path) -> dict[str, object]:
    store = FeatureStore(str(repo))
    views: list[Any] = [*store.list_batch_feature_views(), *store.list_on_demand_feature_views()]
    return {item.name: item for item in (*views, *store.list_feature_services(), *store.list_entities())}
