"""Training sets in the storage: the rows, the package and the decisions of one in memory; continued after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from skewless.contract.errors import SourceError
from skewless.contract.lifecycle import Search
from skewless.contract.spec import Gate, Split
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.engines.job import TRAINING_SET, delete_results
from skewless.infra.reads.offline.engine import connect
from skewless.training import dataset_files, stored_dataset
from skewless.training.dataset import Dataset
from skewless.training.promotion import promote
from skewless.training.quality import score_version
from skewless.training.stored_dataset import StoredDataset, StoredParts
from skewless.training.train import TrainedVersion, train
from skewless.training.training_data import TrainingData
from tests.integration.training.test_across_plans import CHANGES, accept
from tests.integration.training.test_train import FIELDS
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.packages import store_at
from tests.worlds.planted import Killed
from tests.worlds.shop import DAY, END, SPEC, Shop, open_shop

ROOT = Path(__file__).parents[4]
# The only files that say where the rows were, and the time.
OWN_FILES = {"about.json", "manifest.json", "signature.json"}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_parts(monkeypatch)


def make_small_parts(monkeypatch: pytest.MonkeyPatch, block_rows: int = 16) -> None:
    """Let searches have a few hundred rows, parts fewer, and blocks a dozen."""
    monkeypatch.setattr(dataset_files, "LEAST_ROWS", 37)
    monkeypatch.setattr(dataset_files, "PART_BYTES", 8_000)
    monkeypatch.setattr(dataset_files, "SEARCH_BYTES", 12_000)
    monkeypatch.setattr(stored_dataset, "count_block_rows", lambda _columns: block_rows)


@pytest.fixture(scope="module")
def finite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop whose ratio never divides by 0: XGBoost trains on no infinity."""
    with open_shop(tmp_path_factory.mktemp("finite"), fewest=1) as shop:
        yield shop


def give_contradictions(shop: Shop) -> None:
    """Add each second row again, with the label 1."""
    rows = shop.read("labels.parquet")
    again = rows.take(list(range(0, rows.num_rows, 2)))
    again = again.set_column(3, "y", pa.array([1] * again.num_rows))
    shop.write("labels.parquet", pa.concat_tables([again, rows]))


def leftovers(shop: Shop) -> list[str]:
    work = Path(shop.state) / "work"
    return [path.name for path in work.rglob("*")] if work.exists() else []


def check_same(memory: TrainingData, stored: StoredDataset) -> None:
    assert isinstance(memory, Dataset)
    assert stored.fingerprint == memory.fingerprint
    assert np.concatenate(list(stored.matrix.batches())).tobytes() == memory.matrix.tobytes()
    assert (stored.names, stored.vocabularies) == (memory.names, memory.vocabularies)
    assert (stored.counts, stored.status, stored.gap) == (memory.counts, memory.status, memory.gap)
    for mask in ("train", "validation", "test"):
        assert getattr(stored, mask).tolist() == getattr(memory, mask).tolist()
    assert stored.slices.keys() == memory.slices.keys()
    for name, column in memory.slices.items():
        assert (stored.slices[name].values, stored.slices[name].codes.tolist()) == (
            column.values,
            column.codes.tolist(),
        )
    table, expected = stored.table(), memory.table()
    assert table.schema == expected.schema
    assert [column.to_numpy().tobytes() for column in table.columns[:-1]] == [
        column.to_numpy().tobytes() for column in expected.columns[:-1]
    ]


def check_same_package(one: TrainedVersion, other: TrainedVersion) -> None:
    files = sorted(path.relative_to(one.package.path) for path in one.package.path.rglob("*") if path.is_file())
    for file in files:
        if file.name not in OWN_FILES:
            assert (other.package.path / file).read_bytes() == (one.package.path / file).read_bytes(), file
    about = [json.loads((each.package.path / "about.json").read_text()) for each in (one, other)]
    assert [each.pop("rows_in") for each in about] == ["memory", "storage"]
    assert about[0] == about[1]


@pytest.mark.parametrize("mode", ["knowledge", pytest.param("event_time", marks=pytest.mark.soak)])
def test_the_rows_are_those_of_memory(shop: Shop, mode: Any) -> None:  # noqa: ANN401 - a TimeMode
    give_contradictions(shop)
    spec = replace(SPEC, time_mode=mode, slices=("id",), split=replace(SPEC.split, validation=timedelta(days=2)))
    memory = shop.dataset(spec)
    assert memory.counts["contradicting"] > 50
    with shop.training_builder(spec).open_stored() as stored:
        assert len(stored.files.objects) > 5
        check_same(memory, stored)
    assert leftovers(shop) == []


# In `make test`, each algorithm with the hardest of its tasks; test_stored_sets.py has the model of each pair.
OFTEN = {("ranking", "xgboost"), ("multiclass", "lightgbm")}


@pytest.mark.parametrize(
    ("task", "algorithm"),
    [
        pytest.param(task, algorithm, marks=[] if (task, algorithm) in OFTEN else [pytest.mark.soak])
        for task in FIELDS
        for algorithm in ("lightgbm", "xgboost")
    ],
)
def test_the_package_and_the_decision_are_those_of_memory(
    finite: Shop, tmp_path: Path, algorithm: str, task: str
) -> None:
    split = replace(SPEC.split, validation=timedelta(days=4))
    params = {"early_stopping_rounds": 4}
    spec = replace(SPEC, algorithm=algorithm, rounds=10, split=split, params=params, slices=("id",), **FIELDS[task])
    memory, stores = finite.dataset(spec), [store_at(tmp_path / name) for name in ("memory", "stored")]
    with finite.training_builder(spec).open_stored() as stored:
        for _ in range(2):
            data: list[TrainingData] = [memory, stored]
            versions = [train(one, spec, store, threads=1, now_us=END) for one, store in zip(data, stores, strict=True)]
            check_same_package(*versions)
            decisions = [
                promote(one, spec, version, store, END)
                for one, version, store in zip(data, versions, stores, strict=True)
            ]
            assert decisions[0] == decisions[1]
        assert decisions[0].champion is not None
    assert leftovers(finite) == []


# test_across_plans.py has each change; of them, rows in the storage read other views and transforms.
CHANGES_OFTEN = {"a view renamed", "a transform"}


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize(
    "change", [pytest.param(name, marks=() if name in CHANGES_OFTEN else pytest.mark.soak) for name in CHANGES]
)
def test_a_champion_of_another_plan_has_the_scores_of_memory(shop: Shop, tmp_path: Path, change: str) -> None:
    accept(shop, CHANGES[change])
    other = shop.training_builder(plan=CHANGES[change]).build()
    train(other, SPEC, store_at(tmp_path), threads=1, now_us=END)
    memory = shop.dataset()
    with shop.training_builder().open_stored() as stored:
        expected = score_version(memory, SPEC, store_at(tmp_path), "000001")
        assert score_version(stored, SPEC, store_at(tmp_path), "000001").tobytes() == expected.tobytes()


@pytest.mark.soak  # in make test, they are in a folder
def test_the_rows_can_be_in_a_bucket(tmp_path: Path, bucket_url: str) -> None:
    """Each block is read from a local copy, which may be deleted at any time."""
    addresses = ProjectAddresses(storage_url=bucket_url)
    with open_shop(tmp_path, 1, addresses) as shop:
        state = shop.project_state
        memory = shop.training_builder().build()
        with (
            suppress(KeyboardInterrupt),
            shop.training_builder().open_stored() as stored,
        ):
            shutil.rmtree(shop.state / "cache")
            check_same(memory, stored)
            raise KeyboardInterrupt
        shutil.rmtree(shop.state / "cache")
        assert len(list(state.storage.list_objects("work"))) == len(stored.files.objects) + 1
        memory = shop.training_builder().build()
        with shop.training_builder(now_us=END + 9).open_stored() as again:
            assert again.files.objects == stored.files.objects
            check_same(memory, again)
        assert list(state.storage.list_objects("work")) == []
        assert not {each.digest for each in stored.files.objects} & {
            path.stem for path in (shop.state / "cache").iterdir()
        }


def test_a_search_finds_the_parameters_of_memory(finite: Shop, tmp_path: Path) -> None:
    spec = replace(
        SPEC,
        rounds=3,
        split=replace(SPEC.split, validation=timedelta(days=4)),
        search=Search(space={"num_leaves": (2, 9)}, trials=2),
    )
    with finite.training_builder(spec).open_stored() as stored:
        versions = [
            train(data, spec, store_at(tmp_path / name), threads=1, now_us=END)
            for name, data in (("memory", finite.dataset(spec)), ("stored", stored))
        ]
    check_same_package(*versions)


# Below, a process is killed after its third part.
@pytest.mark.parametrize("parts", [1, *(pytest.param(parts, marks=pytest.mark.soak) for parts in (0, 3, 100))])
def test_an_interrupted_training_continues_as_of_its_start(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    written: list[str] = []
    add = StoredParts.add

    def dying(self: StoredParts, *arguments: Any) -> None:  # noqa: ANN401 - those of `add`
        if len(self.parts) == parts:
            raise Killed
        add(self, *arguments)
        written.append(self.objects[-1].name)

    monkeypatch.setattr(StoredParts, "add", dying)
    with suppress(Killed), shop.training_builder().open_stored():
        raise Killed
    monkeypatch.setattr(StoredParts, "add", add)
    # Later, more rows and labels are known; they do not count.
    memory = shop.dataset()
    shop.materialize(END + DAY // 2)
    with shop.training_builder(now_us=END + DAY // 2).open_stored() as stored:
        assert stored.as_of_us == END
        assert [item.name for item in stored.files.objects][: len(written)] == written
        check_same(replace(memory, as_of_us=END), stored)
    assert leftovers(shop) == []


DIE = "import sys; from tests.nightly.integration.training.test_stored_dataset import die; die(sys.argv[1])"


def die(root: str) -> None:
    """Begin a training set, and be killed after its third part; for a process of its own."""
    add = StoredParts.add

    def dying(self: StoredParts, *arguments: Any) -> None:  # noqa: ANN401 - those of `add`
        add(self, *arguments)
        if len(self.parts) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as monkeypatch, connect(Path(root) / "spill", threads=1) as connection:
        make_small_parts(monkeypatch)
        monkeypatch.setattr(StoredParts, "add", dying)
        with Shop(root=Path(root), opened=connection).training_builder().open_stored():
            pass


def test_a_killed_training_continues(shop: Shop) -> None:
    spilled = ProjectState(shop.state) / "spill" / f"{socket.gethostname()}-{2**22 + 1}"
    spilled.mkdir(parents=True)  # of XGBoost, of a process that cannot exist
    command = [sys.executable, "-c", DIE, str(shop.root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (document,) = Documents(ProjectState(shop.state).database, TRAINING_SET).list_all().values()
    assert len(document["parts"]) == 3
    with shop.training_builder(now_us=END + 1).open_stored() as stored:
        assert [list(item) for item in stored.files.objects][:3] == document["objects"][1:]
        check_same(shop.dataset(), stored)
    assert leftovers(shop) == []
    assert not spilled.exists()


def test_a_day_later_or_after_an_erasure_it_begins_again(shop: Shop) -> None:
    def interrupt(now_us: int) -> int | None:
        with suppress(KeyboardInterrupt), shop.training_builder(now_us=now_us).open_stored() as stored:
            raise KeyboardInterrupt
        return stored.as_of_us

    assert interrupt(END) == END
    assert interrupt(END + DAY - 1) == END
    assert interrupt(END + DAY) == END + DAY
    delete_results(ProjectState(shop.state))
    assert interrupt(END + DAY + 5) == END + DAY + 5
    # An older clock must not continue a later training.
    assert interrupt(END) == END


def test_an_error_of_the_data_keeps_nothing(shop: Shop, tmp_path: Path) -> None:
    spec = replace(SPEC, split=Split(test=timedelta(days=400)))
    with pytest.raises(SourceError, match="has no row in the train period"), shop.training_builder(spec).open_stored():
        pass
    with pytest.raises(SourceError, match="has no usable row"), shop.training_builder(now_us=0).open_stored():
        pass
    spec = replace(
        SPEC, task="multiclass", classes=("a", "b", "c", "d"), gate=Gate(metric="auc_macro"), params={"x": 1}
    )
    labels = shop.read("labels.parquet")
    shop.write("labels.parquet", labels.set_column(3, "y", pa.array([0] * labels.num_rows)))
    with pytest.raises(SourceError, match="are not at least two"), shop.training_builder(spec).open_stored() as stored:
        train(stored, spec, store_at(tmp_path), threads=1, now_us=END)
    assert leftovers(shop) == []


def test_the_size_of_the_matrix_decides(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 500 * 4 * 8
    for limit, algorithm, is_stored in (
        (size, "lightgbm", False),
        (size - 1, "xgboost", True),
        (size - 1, "sklearn", False),
    ):
        monkeypatch.setattr(stored_dataset, "read_memory_limit", lambda _connection, limit=limit: limit)
        with shop.training_builder(replace(SPEC, algorithm=algorithm)).open() as data:
            assert data.is_stored is is_stored
