"""Reads of views by tasks: the bits of one read of all rows, whatever the buckets, workers, kills and interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from skewless.contract.columns import Column
from skewless.contract.errors import StoreError
from skewless.contract.settings import Settings
from skewless.infra.log.bucket_order import BucketOrder, BucketRange
from skewless.infra.log.compaction import compact
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.engines.engine import Engine
from skewless.infra.reads.engines.job import Jobs, spill_folder
from skewless.infra.reads.engines.processes import ProcessExecutor
from skewless.infra.reads.engines.results import FOLDER
from skewless.infra.reads.engines.task import TaskResult
from skewless.infra.reads.engines.view_reads import EngineViews
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.join import Order
from skewless.infra.reads.offline.views import LogExtents, OfflineViews
from tests.nightly.integration.training.test_stored_dataset import check_same, make_small_parts
from tests.nightly.integration.training.test_stored_dataset import leftovers as stored_leftovers
from tests.worlds import engine_contract
from tests.worlds.engines import ALL, WINDOWS, EngineWorld, bits_of, leftovers, open_engine_world, plan_of
from tests.worlds.plans import make_plan
from tests.worlds.shop import END, PLAN, RATIO, SLOW, VIEW
from tests.worlds.tasks import make_tasks
from tests.worlds.workers import WORKERS

ROOT = Path(__file__).parents[4]
BUCKETS = (1, 7, 4_096)
WINDOWED = replace(
    make_plan(
        ["v.x", "v.s", "slow.n", "made.out", *(f"now.{column.name}" for column in WINDOWS.features)],
        views=[VIEW, SLOW],
        request={column.name: column.dtype for column in PLAN.request},
        transforms=[RATIO],
    ),
    windows=(WINDOWS,),
)
_SOAK = pytest.mark.soak


@pytest.fixture(scope="module")
def engine_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineWorld]:
    with open_engine_world(tmp_path_factory.mktemp("engines")) as world:
        yield world


@pytest.mark.parametrize(
    ("workers", "order"),
    [
        (1, "event_time"),
        (2, "knowledge"),
        pytest.param(1, "knowledge", marks=_SOAK),
        pytest.param(2, "event_time", marks=_SOAK),
    ],
)
def test_each_number_of_buckets_gives_the_bits_of_one_read(
    engine_world: EngineWorld, order: Order, workers: int
) -> None:
    entities = engine_world.entities(400)
    expected = bits_of(OfflineViews(engine_world.state, engine_world.shop.connection).read(plan_of(1), entities, order))
    views = engine_world.views(WORKERS if workers == 2 else ProcessExecutor(1))
    for buckets in BUCKETS if workers == 2 else BUCKETS[1:2]:
        assert bits_of(views.read(plan_of(buckets), entities, order)) == expected, buckets
        assert sum(result.rows for result in views.results) == 4 * 400
        # At most a task per worker and view; no more tasks than buckets.
        assert len(views.results) == 4 * min(workers, buckets)
    assert leftovers(engine_world) == [] or workers == 1


@pytest.mark.parametrize("order", ["knowledge", pytest.param("event_time", marks=_SOAK)])
def test_sorted_logs_give_the_bits_of_logs_in_order(tmp_path: Path, order: Order) -> None:
    """Of the logs, some segments are sorted by the keys of one view, and others are not yet."""
    with open_engine_world(tmp_path) as world:
        entities, events = world.entities(400), [f"events/s/ab/{i}" for i in range(2)]
        for partition in events:
            PartitionLog(world.state, partition).record_end(0, 1_499, END)
        expected = bits_of(OfflineViews(world.state, world.shop.connection).read(plan_of(1), entities, order))
        sorted_files = [sort_log(world, view.partition, view.keys, keep=1) for view in ALL.views]
        sorted_files += [sort_log(world, partition, WINDOWS.keys, keep=2) for partition in events]
        assert all(sorted_files)
        alone = OfflineViews(world.state, world.shop.connection)
        assert bits_of(alone.read(plan_of(1), entities, order)) == expected
        views = world.views(WORKERS)
        for buckets in (64, 4_096):  # another number than that of the files, and theirs
            assert bits_of(views.read(plan_of(buckets), entities, order)) == expected, buckets


def sort_log(world: EngineWorld, partition: str, keys: tuple[Column, ...], keep: int) -> int:
    """Compact a log except its latest segments; return the number of files that are sorted by 4,096 buckets."""
    log = PartitionLog(world.state, partition)
    order = BucketOrder(keys=keys, buckets=4_096, block_rows=700, group_rows=50)
    compact(log, keep=keep, target_rows=1_000, group=lambda _: "", order=order)
    assert [part.num_rows for part in log.read()]
    return sum(BucketRange(first=0, end=9, count=4_096).is_order_of(file, keys) for file in log.files())


def test_a_part_of_a_search_has_the_rows_of_that_part(engine_world: EngineWorld) -> None:
    entities, plan = engine_world.entities(400), plan_of(64)
    expected = OfflineViews(engine_world.state, engine_world.shop.connection).read(
        plan, entities.slice(100, 100), "knowledge"
    )
    with engine_world.views(WORKERS).search(plan, entities, "knowledge", LogExtents()) as read_rows:
        assert bits_of(read_rows(100, 100)) == bits_of(expected)
        assert len(read_rows(300, 500)["v"].has_row) == 100


def test_the_training_set_has_its_usual_fingerprint(engine_world: EngineWorld) -> None:
    shop = engine_world.shop
    dataset = shop.training_builder(plan=plan_of(64, PLAN), views=engine_world.views(WORKERS)).build()
    assert dataset.fingerprint == shop.dataset().fingerprint


def test_windows_and_engines_give_stored_rows_of_memory(
    engine_world: EngineWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small_parts(monkeypatch, block_rows=200)  # of some 500
    expected = engine_world.shop.training_builder(plan=WINDOWED).build()
    assert expected.gap is not None
    for views in (None, engine_world.views(WORKERS)):
        with engine_world.shop.training_builder(plan=WINDOWED, views=views).open_stored() as stored:
            check_same(expected, stored)
        assert stored_leftovers(engine_world.shop) == []


def test_small_work_starts_no_worker(engine_world: EngineWorld) -> None:
    executor = ProcessExecutor(2)
    views = engine_world.views(executor, engine_rows=1_000_000)
    views.read(plan_of(64), engine_world.entities(200), "knowledge")
    assert (executor.pids(), list(views.results)) == ([], [])


@pytest.mark.parametrize(
    ("workers", "settings", "expected"),
    [(1, {"engine": "processes"}, False), (2, {}, False), (4, {}, True), (2, {"engine": "processes"}, True)],
)
def test_few_workers_are_used_only_if_the_engine_is_chosen(
    engine_world: EngineWorld, workers: int, settings: dict[str, object], *, expected: bool
) -> None:
    engine = engine_world.views(ProcessExecutor(workers), engine_rows=10, **settings).engine
    assert engine.is_large(10) == expected
    assert not engine.is_large(9)
    assert engine.is_large(1, cost=10) == expected


def test_results_of_a_failed_block_are_used_again(engine_world: EngineWorld) -> None:
    entities, plan = engine_world.entities(500), plan_of(64)
    views = engine_world.views(WORKERS)
    with pytest.raises(KeyError), views.search(plan, entities, "knowledge", LogExtents()):
        raise KeyError
    first = [result.peak_bytes for result in views.results]
    assert leftovers(engine_world)
    views.read(plan, entities, "knowledge")
    assert [result.peak_bytes for result in views.results] == first  # read from the database, not computed again
    assert leftovers(engine_world) == []


def test_a_result_without_its_object_is_computed_again(engine_world: EngineWorld) -> None:
    entities, plan = engine_world.entities(400), plan_of(64)
    views = engine_world.views(WORKERS)
    with pytest.raises(KeyError), views.search(plan, entities, "knowledge", LogExtents()):
        raise KeyError
    engine_world.state.storage.delete([stored.name for result in views.results for stored in result.objects])
    expected = OfflineViews(engine_world.state, engine_world.shop.connection).read(plan, entities, "knowledge")
    assert bits_of(views.read(plan, entities, "knowledge")) == bits_of(expected)
    assert leftovers(engine_world) == []


def test_a_second_attempt_with_another_digest_is_an_error(engine_world: EngineWorld) -> None:
    jobs = Jobs(state=engine_world.state, executor=ProcessExecutor(1))
    result = TaskResult(task="k-1/0-7", rows=1, digest="aa")
    assert jobs.record(result) == result
    assert jobs.record(replace(result, read_s=2.0)) == result  # the first one counts
    with pytest.raises(StoreError, match=r"task k-1/0-7: has given two different results \(got 'aa and bb'\)"):
        jobs.record(replace(result, digest="bb"))
    assert jobs.record(replace(result, digest="bb", basis="of a later time")) == result
    Documents(engine_world.state.database, "task_result").delete("k-1/0-7")


def test_the_first_work_beyond_the_memory_limit_finds_its_folder(tmp_path: Path) -> None:
    spill = spill_folder(ProjectState(tmp_path / "state"))
    with closing(connect(spill, memory_limit="60MB", threads=1)) as connection:
        query = "SELECT count(*) FROM (SELECT hash(i) AS h FROM range(4_000_000) t(i) ORDER BY h)"
        assert connection.execute(query).fetchall() == [(4_000_000,)]
        assert list(spill.iterdir())


def test_old_results_of_killed_jobs_are_deleted(engine_world: EngineWorld) -> None:
    stored = engine_world.state.storage.put(f"{FOLDER}/old/1.arrow", b"x")
    os.utime(engine_world.state.folder / stored.name, (0, 0))
    begun = [engine_world.state.storage.staging_path() for _ in range(2)]
    for path, age in zip(begun, (0, None), strict=True):
        path.touch()
        os.utime(path, None if age is None else (age, age))
    Documents(engine_world.state.database, "task_result").create("old", {"at_us": 0})
    jobs = Jobs(state=engine_world.state, executor=ProcessExecutor(1))
    with jobs.run("count", lambda: make_tasks("count", 2)) as results:
        assert [result.rows for result in results] == [0, 1]
    assert leftovers(engine_world) == []
    assert [path.exists() for path in begun] == [False, True]
    (engine_world.state / FOLDER / "old").rmdir()  # empty, and the next test looks at folders, too


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_many_killed_workers_change_no_bit(tmp_path: Path) -> None:
    engine_contract.check_killed_reads(WORKERS, tmp_path, kills=50)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_ten_million_events_have_the_bits_of_one_process(tmp_path: Path) -> None:
    engine_contract.check_digests(WORKERS, tmp_path, events=10_000_000)


def test_a_killed_driver_leaves_no_worker_and_its_job_continues(tmp_path: Path) -> None:
    with open_engine_world(tmp_path) as world:
        tasks = make_tasks("count", 8, seconds=0.3)
        program = (
            "from pathlib import Path; from skewless.infra.reads.engines.job import Jobs\n"
            "from skewless.infra.reads.engines.processes import ProcessExecutor\n"
            "from skewless.infra.platform.storage.project_state import ProjectState\n"
            "from tests.worlds.tasks import make_tasks\n"
            f"jobs = Jobs(state=ProjectState(Path({str(world.shop.state)!r})), executor=ProcessExecutor(2))\n"
            "with jobs.run('count', lambda: make_tasks('count', 8, seconds=0.3),"
            " lambda result: print(result.values['pid'], flush=True)): pass\n"
        )
        with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            pids = [int(driver.stdout.readline()) for _ in range(3)]
            driver.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        finished = len(Documents(world.state.database, "task_result").names())
        assert 3 <= finished < 8
        jobs = Jobs(state=world.state, executor=ProcessExecutor(1))
        with jobs.run("count", lambda: tasks) as results:
            computed_here = sum(result.values["pid"] == os.getpid() for result in results)
            assert [result.rows for result in results] == list(range(8))
        assert computed_here == 8 - finished
        assert leftovers(world) == []


@pytest.mark.long
def test_results_are_in_a_bucket_if_the_project_has_one(tmp_path: Path, bucket_url: str) -> None:
    with open_engine_world(tmp_path, events=300) as world:
        entities, plan = world.entities(300), plan_of(64, replace(ALL, windows=()))
        settings = Settings(state="state", storage_url=bucket_url, engine_rows=0, threads=1)
        state = ProjectState.of(world.shop.root, settings)
        engine = Engine(open=lambda: WORKERS, repo=world.shop.root, state=state, settings=settings)
        views = EngineViews(state, world.shop.connection, engine)
        # The logs were written to the folder.
        for view in plan.views:
            log = PartitionLog(world.state, view.partition)
            for segment in log.segments():
                state.storage.put_file(segment.stored.name, log.storage.local_path(segment.stored))
        with views.search(plan, entities, "event_time", LogExtents()) as read_rows:
            found = read_rows(0, 300)
            assert [item.name for item in state.storage.list_objects(FOLDER)] != []
        assert bits_of(found) == bits_of(OfflineViews(state, world.shop.connection).read(plan, entities, "event_time"))
        assert [item.name for item in state.storage.list_objects(FOLDER)] == []
