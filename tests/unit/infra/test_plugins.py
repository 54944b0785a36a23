"""Trainers, runtimes and online stores of other packages are found by their entry points, and imported only then."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.errors import DefinitionError, PackageError, StoreError
from skewless.infra.models.runtimes.candidates import find_candidates, open_runtime
from skewless.infra.platform.host.plugins import Group, find_plugin, is_registered
from skewless.infra.reads.online.store import open_online_store
from skewless.training.train import find_trainer

MODULE = "another_package_of_trees"
SOURCE = """
class Trainer:
    def __init__(self, threads):
        self.threads = threads

from skewless.infra.models.runtimes.port import RuntimeProvider

def opened(algorithm, path):
    return algorithm, path.read_text()

own = RuntimeProvider(name="another", algorithms=("another-forest",), open=opened)
fast = RuntimeProvider(name="fast", algorithms=("lightgbm", "another-forest"), open=opened)
"""
ENTRY_POINTS = f"""
[skewless.trainers]
another-forest = {MODULE}:Trainer
broken = {MODULE}_that_is_not_there:Trainer
[skewless.runtimes]
another-forest = {MODULE}:own
fast = {MODULE}:fast
lightgbm = {MODULE}:own
nameless = {MODULE}:Nothing
[skewless.online_stores]
broken = {MODULE}_that_is_not_there:Store
redis = {MODULE}_that_is_not_there:Store
"""


@pytest.fixture(autouse=True)
def _another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    folder = tmp_path / "another_package-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: another-package\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop(MODULE, None)


def test_a_name_is_looked_up_without_an_import() -> None:
    assert is_registered("skewless.trainers", "another-forest")
    assert not is_registered("skewless.trainers", "nameless")
    assert MODULE not in sys.modules


def test_what_is_registered_is_imported_and_returned() -> None:
    made: Any = find_plugin("skewless.trainers", "another-forest")
    assert made(3).threads == 3
    assert find_plugin("skewless.trainers", "nobody") is None


@pytest.mark.parametrize(
    ("group", "name"),
    [("skewless.trainers", "broken"), ("skewless.runtimes", "nameless"), ("skewless.online_stores", "broken")],
)
def test_what_cannot_be_imported_is_named(group: Group, name: str) -> None:
    with pytest.raises(DefinitionError, match=rf"'{name}' of {group}: cannot be imported"):
        find_plugin(group, name)


def test_a_trainer_and_a_runtime_are_found_by_the_algorithm(tmp_path: Path) -> None:
    trainer: Any = find_trainer("another-forest", threads=2)
    assert trainer.threads == 2
    (tmp_path / "model.txt").write_text("trees")
    runtime: Any = open_runtime("another-forest", tmp_path / "model.txt")
    assert runtime == ("another-forest", "trees")


@pytest.mark.parametrize("algorithm", ["lightgbm", "another-forest"])
def test_a_second_runtime_is_found_by_the_setting(algorithm: str, tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("trees")
    (found,) = find_candidates(algorithm, "auto", tmp_path / "model.txt", "fast")
    opened: Any = found.open()
    assert (found.name, found.problem, opened) == ("fast", None, (algorithm, "trees"))
    assert find_candidates("xgboost", "auto", tmp_path / "model.txt", "fast") == []


def test_a_second_runtime_that_cannot_be_imported_is_a_candidate_with_a_problem(tmp_path: Path) -> None:
    (found,) = find_candidates("lightgbm", "auto", tmp_path / "model.txt", "nameless")
    assert found.name == "nameless"
    assert "entry point 'nameless' of skewless.runtimes: cannot be imported" in str(found.problem)


def test_no_package_replaces_a_runtime_of_ours(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("trees")
    with pytest.raises(PackageError, match="is rejected by the library"):
        open_runtime("lightgbm", tmp_path / "model.txt")


def test_an_algorithm_that_nothing_trains_or_serves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"'nobody': is not installed.*pip install 'skewless\[nobody\]'"):
        find_trainer("nobody")
    (tmp_path / "model.txt").write_text("trees")
    with pytest.raises(PackageError, match=r"does not support the algorithm.*'nobody'"):
        open_runtime("nobody", tmp_path / "model.txt")


def test_the_scheme_of_a_url_names_the_package_that_opens_it() -> None:
    with pytest.raises(DefinitionError, match=r"'broken' of skewless.online_stores: cannot be imported"):
        open_online_store("broken://host/0")
    with pytest.raises(StoreError, match=r"is not the URL of a Redis.*another scheme needs the package of its adapter"):
        open_online_store("nobody://host/0")


def test_no_package_takes_the_urls_of_redis() -> None:
    with pytest.raises(StoreError, match=r"Redis at redis://127\.0\.0\.1:1/0: did not answer"):
        open_online_store("redis://127.0.0.1:1/0")
