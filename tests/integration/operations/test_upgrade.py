"""The state of a release before the database is imported: nothing is lost, also if the upgrade is killed."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.access.api_keys import KeyStore
from skewless.infra.jobs.ledger import Ledger
from skewless.infra.log.generations import Generations
from skewless.infra.packages.store import Aliases, Decisions, Traffic
from skewless.infra.plans.applied_plan import read_applied
from skewless.infra.plans.needed_views import StoredTargetVersions
from skewless.infra.rollout.counts import read_counts
from skewless.infra.storage.documents import Documents, Records
from skewless.infra.storage.durable import make_folder
from skewless.infra.storage.leases import Leases
from skewless.infra.storage.package_folder import PackageFolder
from skewless.infra.storage.project_state import ProjectState
from skewless.infra.storage.schema import count_rows
from skewless.operations import upgrade as upgrade_module
from skewless.operations.upgrade import upgrade_state
from tests.worlds.ledger_runs import read_runs

OLDER = Path(__file__).parents[2] / "worlds" / "older_state.tar.xz"  # as release 71dd42d wrote it, without large files
# Files that this project did not have.
_MORE = {
    "scheduler/runs/drift:fraud/known.json": {"since_us": 5},
    "scheduler/requests/start/parity@20260115T120000Z.json": {"cause": "by hand"},
    "left_out/41680bd7e8103439.push.json": {"view": "card_days"},
    "alerts/alerts.json": [],
    "rollouts/older/vitals/fraud.json": {},
}


@pytest.fixture
def older(tmp_path: Path) -> ProjectState:
    """The state of a project with two models, a rollout, a key and a day of jobs."""
    folder = tmp_path / "state"
    with tarfile.open(OLDER) as archive:
        archive.extractall(folder, filter="data")
    for name, body in _MORE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(body))
    (folder / "trusted_keys").write_text("ed25519:AAAA\ned25519:BBBB\n")
    return ProjectState(folder)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def check_imported(state: ProjectState) -> None:
    """Check that every value of the old files is in the database."""
    database = state.database
    applied = read_applied(state)
    assert applied is not None
    assert (applied.plan.hash[:16], [spec.name for spec in applied.models]) == (
        "7b23a819be7a7536",
        ["fraud", "fraud-batch"],
    )
    aliases = Aliases(PackageFolder(state / "packages"), database)
    assert [
        (aliases.get(model, "champion"), len(aliases.history(model, "champion"))) for model in ("fraud", "fraud-batch")
    ] == [
        ("000001", 1),
        ("000001", 1),
    ]
    policy = Traffic(PackageFolder(state / "packages"), database).get("fraud")
    assert policy is not None
    assert (policy.number, policy.phase, policy.challenger) == (1, "shadow", "000002")
    decisions = Decisions(database)
    assert [item["version"] for item in decisions.read_latest_first("fraud")] == ["000003", "000002", "000001"]
    assert [key.name for key in KeyStore(state).read()] == ["ops"]
    assert read_counts(state, "fraud", 1)["000001"].requests == 1
    assert StoredTargetVersions(state).read().unloaded == {"fraud-batch"}
    (run,) = read_runs(database)
    assert (run.run_id, run.ended_us is not None, len(run.covers)) == (1, True, 2)
    ledger = Ledger(state)
    runs = list(ledger.read_latest_first())
    assert len(runs) == 11
    assert {run.state for run in runs} == {"done"}
    assert ledger.latest_token() == 1
    lease = Leases(database).acquire("scheduler")
    assert lease is not None
    assert lease.token > 1, "a former leader stays fenced"
    Leases(database).release(lease)
    assert Generations(state).has_served("payments")
    for kind, names in {
        "generations": {"card_now-3f45631fdb5f3204", "shop_now-5041c6cec03d8acf"},
        "passed_labels": {"fraud", "fraud-batch"},
        "parity_verdicts": {"project"},
        "freshness": {"project"},
        "view_lifecycles": {"project"},
        "read_progress": {"card_days-41680bd7e8103439", "shop_risk-11a97fea467faa75"},
        "known_job": {"drift fraud"},
        "run_request": {"start/parity@20260115T120000Z"},
        "skipped_rows": {"41680bd7e8103439.push"},
        "alerts": {"project"},
        "earlier_rollout_counts": {"older/fraud"},
        "trusted_key": {"ed25519:AAAA", "ed25519:BBBB"},
    }.items():
        assert Documents(database, kind).list_all().keys() == names, kind
    assert all(body for body in Documents(database, "parity_verdicts").list_all().values())
    assert Records(database, "drift_check").names() == ["fraud", "fraud-batch"]
    assert len(Documents(database, "import").list_all()) == 1


def test_all_small_files_are_imported_and_moved(older: ProjectState) -> None:
    before = files(older.folder)
    with pytest.raises(StoreError, match=r"was written by an older release\. Fix: .* `skewless upgrade`"):
        _ = older.database
    dry = upgrade_state(older, dry_run=True)
    assert files(older.folder) == before
    report = upgrade_state(older)
    assert (report.imported, report.schema_before) == (dry.imported, 0)
    assert sum(report.imported.values()) == 45
    check_imported(older)
    remaining = files(older.folder) - {name for name in files(older.folder) if name.startswith("before-upgrade/")}
    small = {name for name in remaining if name.endswith((".json", ".jsonl", ".served"))}
    assert small == {"windows/build.json"}
    moved = {name.removeprefix("before-upgrade/") for name in files(older.folder) if name.startswith("before-upgrade/")}
    assert moved == {name for name in before if name.endswith((".json", ".jsonl", ".served", "trusted_keys"))} - small
    assert upgrade_state(older).imported == {}
    check_imported(older)


@pytest.mark.parametrize("point", ["between two values", "before the commit", "after the commit", "between two moves"])
def test_an_upgrade_that_is_killed_is_run_again(
    older: ProjectState, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class UpgradeKilled(BaseException):
        """The end of the process."""

    def killed(*_: object) -> None:
        raise UpgradeKilled

    with monkeypatch.context() as patch:
        if point == "between two values":
            patch.setattr(
                upgrade_module,
                "_KINDS",
                tuple(
                    kind._replace(load=killed) if kind.pattern == "drift/*.jsonl" else kind
                    for kind in upgrade_module._KINDS
                ),
            )
        elif point == "before the commit":
            patch.setattr(Documents, "delete", killed)
        elif point == "after the commit":
            patch.setattr(upgrade_module, "_move", killed)
        else:
            patch.setattr(upgrade_module, "make_folder", _fail_at(20, make_folder, UpgradeKilled()))
        with pytest.raises(UpgradeKilled):
            upgrade_state(older)
    assert (older / "plan.json").exists(), "the plan is moved last: the state still counts as old"
    if point in {"between two values", "before the commit"}:
        assert not any(count_rows(older.unchecked_database).values())
    upgrade_state(older)
    check_imported(older)


def _fail_at(call: int, function: Callable[[Path], None], error: BaseException) -> Callable[[Path], None]:
    calls = [0]

    def wrapped(path: Path) -> None:
        calls[0] += 1
        if calls[0] == call:
            raise error
        function(path)

    return wrapped


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff"])
@pytest.mark.parametrize("name", ["runs/0000000001.start.json", "scheduler/terms/0000000001.json"])
def test_a_corrupt_file_is_named_and_nothing_is_imported(older: ProjectState, name: str, content: bytes) -> None:
    whole = (older / name).read_bytes()
    (older / name).write_bytes(content)
    with pytest.raises(StoreError, match=f"{name}: is corrupt"):
        upgrade_state(older)
    assert not any(count_rows(older.unchecked_database).values())
    (older / name).write_bytes(whole)
    upgrade_state(older)
    check_imported(older)


def test_an_upgrade_under_a_running_process_is_refused(older: ProjectState) -> None:
    (older / "processes").mkdir(exist_ok=True)
    (older / "processes/server-host-1-ab.json").write_text(json.dumps({}))
    with pytest.raises(ConflictError, match="project: has a running server"):
        upgrade_state(older)
    shutil.rmtree(older / "processes")
    upgrade_state(older)
