"""Applied plans in the database: two applies at once, machines that never applied, and a database that is down."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from skewless.contract.errors import ConflictError, DefinitionError, StalePlanError, StoreError
from skewless.infra.definitions.plans import registry
from skewless.infra.definitions.plans.applied_plan import (
    AppliedPlanReader,
    hash_file,
    hold_apply,
    load_current,
    read_applied,
    read_plan_number,
    read_registry_state,
    save_applied,
)
from skewless.infra.definitions.plans.planning import Planner
from skewless.infra.platform.host import processes
from skewless.infra.platform.host.processes import ProcessRecord, read_processes
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Records
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.schema import STEPS
from skewless.infra.reads.offline.engine import connect
from tests.servers.postgres import ON_POSTGRES, ON_SQLITE, address_of
from tests.worlds.applied_plans import edit_plan
from tests.worlds.edits import edit
from tests.worlds.payments_data import TEMPLATE, write_sample
from tests.worlds.waiting import until

NOW = 1_750_000_000_000_000


@pytest.fixture
def machines(project_database: Database, tmp_path: Path) -> Iterator[list[Planner]]:
    """Two checkouts of a project, each with a folder of its own for files, and one database."""
    with ExitStack() as stack:
        planners = []
        for name in ("here", "there"):
            repo = tmp_path / name
            shutil.copytree(TEMPLATE, repo)
            write_sample(repo / "data", NOW)
            state = ProjectState(repo / ".skewless", address_of(project_database))
            connection = stack.enter_context(connect(repo / "spill", threads=1))
            planners.append(Planner(repo=repo, state=state, connect=connection.cursor))
        yield planners


def change(planner: Planner, days: int) -> None:
    edit(planner.repo, "timedelta(days=30)", f"timedelta(days={days})")


def registry_state(planner: Planner) -> str:
    applied = read_applied(planner.state)
    assert applied is not None
    return read_registry_state(planner.repo, planner.state, applied)


@ON_SQLITE
def test_a_machine_that_never_applied_reads_the_plan(machines: list[Planner]) -> None:
    here, there = machines
    here.apply(NOW)
    assert load_current(there.repo, there.state) == load_current(here.repo, here.state)
    assert registry_state(there) == "missing"
    assert there.plan().changes == []
    there.apply(NOW + 1)  # writes its registry, and nothing that concerns the other machine
    assert {registry_state(planner) for planner in machines} == {"current"}
    number = read_plan_number(here.state)
    for planner in machines:
        assert planner.apply(NOW + 2).changes == []
    assert read_plan_number(here.state) == number


@ON_POSTGRES
def test_a_plan_of_another_machine_does_not_stop_commands(machines: list[Planner]) -> None:
    here, there = machines
    here.apply(NOW)
    there.apply(NOW)
    change(here, 3)
    here.apply(NOW + 1)
    assert registry_state(there) == "outdated"
    assert load_current(there.repo, there.state).plan.hash == load_current(here.repo, here.state).plan.hash
    change(there, 3)
    assert [item.kind for item in there.plan().changes] == ["registry"]
    there.apply(NOW + 2)
    assert {registry_state(planner) for planner in machines} == {"current"}
    path = there.repo / ".skewless/registry.db"
    path.write_bytes(path.read_bytes() + b"\xc0\x3e\x01")
    with pytest.raises(StalePlanError, match="is older than the Feast registry"):
        load_current(there.repo, there.state)
    load_current(here.repo, here.state)


@pytest.mark.timeout(120)
def test_apply_changes_the_tables_once_no_process_uses_them(
    machines: list[Planner], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = machines
    here.apply(NOW)
    state = here.state
    record = ProcessRecord(state, "stream")
    record.send_heartbeat("abc", {})
    until(lambda: read_processes(state))
    state.database.close()
    with monkeypatch.context() as patch:  # a release with another step
        patch.setattr(state.database, "_steps", (*STEPS, ("CREATE TABLE further (x BIGINT)",)))
        needed = rf"needs schema {len(STEPS) + 1}\. Fix: stop all processes .*`skewless apply`"
        with pytest.raises(StoreError, match=needed):
            here.plan()
        with pytest.raises(ConflictError, match=r"has a running stream .*Fix: stop it"):
            here.apply(NOW + 1)
        assert state.database.schema_version() == len(STEPS)
        monkeypatch.setattr(processes, "SILENT_S", 0.0)  # as if it had been killed
        assert here.apply(NOW + 1).changes == []
        assert state.database.query("SELECT * FROM further") == []
    record.close()


@ON_POSTGRES
def test_of_two_applies_at_once_one_is_told_of_the_other(
    machines: list[Planner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one begins while the first one writes its registry."""
    here, there = machines
    change(there, 3)
    registering, may_continue, register = threading.Event(), threading.Event(), registry.register_objects

    @contextmanager
    def wait(*args: Any) -> Iterator[None]:  # noqa: ANN401 - as the wrapped one
        registering.set()
        assert may_continue.wait(60)
        with register(*args):
            yield

    monkeypatch.setattr(registry, "register_objects", wait)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(here.apply, NOW)
        assert registering.wait(60)
        try:
            with pytest.raises(ConflictError, match="plan: is being applied by another process"):
                there.apply(NOW)
        finally:
            may_continue.set()
        hash_here = first.result().hash
    applied = load_current(here.repo, here.state)
    assert (applied.plan.hash, read_plan_number(here.state)) == (hash_here, 1)
    assert not (there.repo / ".skewless/registry.db").exists()


@ON_SQLITE
def test_an_apply_that_was_overtaken_restores_its_registry(
    machines: list[Planner], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = machines
    for planner in machines:
        planner.apply(NOW)
    before, register = hash_file(there.repo / ".skewless/registry.db"), registry.register_objects
    change(there, 3)

    @contextmanager
    def overtake(*args: Any) -> Iterator[None]:  # noqa: ANN401 - as the wrapped one
        edit_plan(here.state, lambda body: body["files"].clear())  # as after a lease that expired
        with register(*args):
            yield

    monkeypatch.setattr(registry, "register_objects", overtake)
    number = read_plan_number(there.state)
    with pytest.raises(ConflictError, match="plan 'applied': was changed by another process"):
        there.apply(NOW + 1)
    assert read_plan_number(there.state) == number + 1
    assert hash_file(there.repo / ".skewless/registry.db") == before


@ON_SQLITE
def test_the_plan_of_a_lost_lease_is_refused(machines: list[Planner]) -> None:
    here, _ = machines
    here.apply(NOW)
    applied = read_applied(here.state)
    assert applied is not None
    with hold_apply(here.state) as lease:
        here.state.database.execute("UPDATE leases SET token = token + 1, holder = ? WHERE name = ?", "h", lease.name)
        with pytest.raises(ConflictError, match="was lost to h"):
            save_applied(here.state, applied, 2, lease)
    assert read_plan_number(here.state) == 1


@ON_SQLITE
def test_a_number_that_json_does_not_have_changes_nothing(machines: list[Planner]) -> None:
    here, _ = machines
    edit(here.repo, "rounds=50", "rounds=50, class_weight=float('inf')", file="models.py")
    with pytest.raises(DefinitionError, match="definitions: have a number that is infinite or NaN"):
        here.apply(NOW)
    assert read_plan_number(here.state) == 0
    assert not (here.repo / ".skewless/registry.db").exists()


@ON_SQLITE
def test_an_unreadable_plan_is_replaced_by_apply(machines: list[Planner]) -> None:
    here, _ = machines
    here.apply(NOW)
    plan = load_current(here.repo, here.state).plan
    edit_plan(here.state, dict.clear)
    with pytest.raises(StalePlanError, match=r"applied plan 2: cannot be read.*`skewless apply` again"):
        read_applied(here.state)
    here.apply(NOW + 1)
    assert (load_current(here.repo, here.state).plan, read_plan_number(here.state)) == (plan, 3)


@ON_SQLITE
def test_a_reader_notices_each_apply_and_outlives_the_database(
    machines: list[Planner], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = machines
    reader, rare = AppliedPlanReader(there.state), AppliedPlanReader(there.state, interval_s=60)
    assert reader.hash() == ""
    with pytest.raises(StalePlanError, match="has no applied plan"):
        reader.read()
    first = here.apply(NOW).hash
    assert (reader.hash(), rare.hash()) == (first, first)
    assert reader.read() is reader.read()
    change(here, 3)
    second = here.apply(NOW + 1).hash
    assert (reader.hash(), rare.hash()) == (second, first)
    assert rare.read(now=True).hash == second

    def fail(*_: object) -> None:
        raise StoreError("database", "is down", fix="start it")

    monkeypatch.setattr(Records, "latest_number", fail)
    with capture_logs() as logs:
        assert [reader.hash() for _ in range(3)] == [second] * 3
    assert [log["event"] for log in logs] == ["plan_not_read"]
    monkeypatch.undo()
    assert reader.hash() == second
