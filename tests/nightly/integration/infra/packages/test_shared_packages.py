"""Packages that hosts share: each host has its own folder, and the storage and the database are the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.errors import PackageError, StoreError
from skewless.contract.settings import Settings
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.models.packages.package import PackageContents, open_package, read_pinned_plan
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.packages.writer import is_signed, sign_package, write_package
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.health.checkup.project import check_package_objects
from tests.nightly.worlds.shared_packages import order_of, package_contents
from tests.reliability.kills import SIDES, Side, victims
from tests.servers.object_storage import ObjectStorageServer, running_object_storage

ROOT = Path(__file__).parents[5]
HostStore = Callable[[str], PackageStore]


@pytest.fixture
def host_store(tmp_path: Path, bucket_url: str, postgres_url: str) -> HostStore:
    """Return the packages as a host with a folder of its own has them."""
    database_url = f"{postgres_url}{'&' if '?' in postgres_url else '?'}schema=test_{uuid.uuid4().hex}"

    def open_host(name: str) -> PackageStore:
        return PackageStore.of(ProjectState(tmp_path / name, database_url, bucket_url), Settings())

    return open_host


def child(store: PackageStore, count: int) -> subprocess.Popen[str]:
    """Start a writer of some versions on the host of a store."""
    words = [*map(str, order_of(store.state).values()), str(count)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.nightly.worlds.shared_packages", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def objects_of(store: PackageStore) -> set[str]:
    return {item.name for item in store.state.storage.list_objects("packages")}


def alter_object(store: PackageStore, path: str, data: bytes) -> None:
    """Replace the bytes of a file of the first version in the bucket, with rights on the bucket alone."""
    body: Any = Documents(store.state.database, "package").get("late/000001")
    store.state.storage.put(body["files"][path][0], data)
    shutil.rmtree(store.state / "cache", ignore_errors=True)


def test_a_version_of_one_host_is_a_version_of_all(host_store: HostStore) -> None:
    one, two = host_store("one"), host_store("two")
    assert (two.packages.list_models(), two.packages.list_versions("late")) == ([], [])
    written = write_package(one, "late", package_contents())
    assert two.packages.list_models() == ["late"]
    assert two.packages.list_versions("late") == ["000001"]
    two.aliases.move("late", "champion", expect=None, to="000001", reason="r", now_us=1)
    two.traffic.replace("late", TrafficPolicy(number=1, phase="ab", champion="000001"), expect=None)
    assert two.packages.manifest_digest("late", "000001") == written.digest
    assert not (two.state / "packages").exists()  # until now the files were not needed
    found = open_package(two, "late", "000001")
    assert (found.digest, found.extra) == (written.digest, written.extra)
    assert found.path == two.state / "packages/late/000001"
    assert write_package(two, "late", package_contents()).version == "000002"  # signed by another key
    assert two.check_signer() != one.check_signer()
    assert open_package(one, "late", "000002").version == "000002"
    for name, version in (("late", "000003"), ("early", "000001"), ("late", "..")):
        with pytest.raises(PackageError, match="no such version"):
            one.packages.version_folder(name, version)


def test_a_copied_folder_is_no_version(host_store: HostStore) -> None:
    """The registry decides; a number whose folder is taken is skipped."""
    one, two = host_store("one"), host_store("two")
    folder = write_package(one, "late", package_contents()).path
    shutil.copytree(folder, folder.with_name("000002"))
    assert one.packages.list_versions("late") == ["000001"]
    assert write_package(one, "late", package_contents()).version == "000003"
    assert write_package(two, "late", package_contents()).version == "000004"


def test_a_deleted_copy_is_downloaded_once_for_all(host_store: HostStore) -> None:
    one = host_store("one")
    package = write_package(one, "late", package_contents())
    shutil.rmtree(one.state / "packages")
    shutil.rmtree(one.state / "cache")
    killed = one.state / "packages/late/.copy-killed"
    killed.mkdir(parents=True)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: open_package(one, "late", "000001"), range(8)))
    assert {item.digest for item in found} == {package.digest}
    assert sorted(path.name for path in killed.parent.iterdir()) == [".copy.lock", "000001"]


def test_an_altered_copy_is_refused(host_store: HostStore) -> None:
    one = host_store("one")
    path = write_package(one, "late", package_contents()).path
    (path / "extra/transforms.py").write_text("import os")
    with pytest.raises(PackageError, match=r"altered file.*transforms\.py"):
        open_package(one, "late", "000001")
    (path / "manifest.json").write_text("{}")
    with pytest.raises(PackageError, match=r"another manifest.*delete the folder"):
        open_package(one, "late", "000001")
    shutil.rmtree(path)
    assert open_package(one, "late", "000001").version == "000001"


def test_an_altered_bucket_is_refused(host_store: HostStore) -> None:
    one, two = host_store("one"), host_store("two")
    write_package(one, "late", package_contents())
    good = (one.state / "packages/late/000001/plan.json").read_bytes()
    alter_object(two, "plan.json", good.replace(b"hash", b"hush"))
    for _ in range(2):
        with pytest.raises(PackageError, match=r"package 'late' version '000001': cannot be downloaded.*has changed"):
            read_pinned_plan(two, "late", "000001")
        assert [path.name for path in (two.state / "packages/late").iterdir()] == [".copy.lock"]
    alter_object(two, "plan.json", good)
    assert open_package(two, "late", "000001").version == "000001"
    two.state.storage.delete(list(objects_of(two)))
    with pytest.raises(PackageError, match=r"cannot be downloaded: file .*is missing"):
        open_package(host_store("three"), "late", "000001")
    assert open_package(one, "late", "000001").version == "000001"


def test_the_doctor_compares_the_objects(host_store: HostStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that this machine has a copy of; beyond the limit, only that the older ones exist."""
    one, two = host_store("one"), host_store("two")
    assert check_package_objects(one.state) == []
    for _ in range(2):
        write_package(one, "late", package_contents())
    good = (one.state / "packages/late/000001/plan.json").read_bytes()

    def judge() -> tuple[str, str]:
        (finding,) = check_package_objects(two.state)
        return finding.verdict, finding.detail

    verdict, detail = judge()
    assert (verdict, detail.endswith("MB, unchanged")) == ("ok", True)
    newest = sum(path.stat().st_size for path in (one.state / "packages/late/000002").rglob("*") if path.is_file())
    monkeypatch.setattr("skewless.operations.health.checkup.project._MOST_READ", newest)
    assert judge() == ("ok", detail.replace("unchanged", "the latest 15 unchanged, the others only listed"))
    alter_object(one, "plan.json", good.replace(b"hash", b"hush"))
    assert judge()[0] == "ok"
    alter_object(one, "plan.json", good + b" ")
    assert judge()[0] == "fail"
    alter_object(one, "plan.json", good)
    assert judge()[0] == "ok"
    monkeypatch.setattr("skewless.operations.health.checkup.project._MOST_READ", 10**9)
    alter_object(one, "plan.json", good.replace(b"hash", b"hush"))
    assert "has changed" in judge()[1]
    one.state.storage.delete([next(iter(objects_of(one)))])
    assert judge()[0] == "fail"


def test_a_registry_that_an_attacker_wrote_is_refused(host_store: HostStore) -> None:
    """Who can write the database and the bucket, and has no trusted key, cannot run code; nor write other files."""
    one = host_store("one")
    write_package(one, "late", package_contents())
    key = one.check_signer()
    two = PackageStore.of(host_store("two").state, Settings(trusted_keys=(key,)))
    registry = Documents(one.state.database, "package")
    body: Any = registry.get("late/000001")
    foreign = write_package(host_store("untrusted"), "late", package_contents())
    with pytest.raises(PackageError, match="not trusted"):
        open_package(two, "late", foreign.version)
    registry.put("late/000003", body)
    with pytest.raises(PackageError, match="altered file"):
        open_package(two, "late", "000003")
    files = {f"../../../{path}": stored for path, stored in body["files"].items()}
    registry.put("late/000004", {**body, "files": files})
    with pytest.raises(PackageError, match="plain file name"):
        open_package(two, "late", "000004")
    assert not list(two.state.folder.glob("*.json"))


def test_writers_on_many_hosts_get_versions_of_their_own(host_store: HostStore) -> None:
    processes = [child(host_store(f"host{number}"), 3) for number in range(2)]
    answers = [process.communicate(timeout=240)[0] for process in processes]
    versions = sorted(version for answer in answers for version in json.loads(answer.splitlines()[-1]))
    reader = host_store("reader")
    assert versions == reader.packages.list_versions("late") == [f"{number:06d}" for number in range(1, 7)]
    for version in versions:
        assert open_package(reader, "late", version).version == version
    assert len(reader.trust.trusted_keys()) == 2


@pytest.mark.timeout(600)
@pytest.mark.parametrize("sides", [("before",), pytest.param(SIDES, marks=pytest.mark.soak)])
def test_a_writer_killed_at_any_step_leaves_no_version_or_a_complete_one(
    host_store: HostStore, tell: Callable[[str], None], sides: Sequence[Side]
) -> None:
    """After a step is before the next one, but for the one that counts."""
    with victims("tests.nightly.worlds.shared_packages") as dying:
        steps = dying.points(**order_of(host_store("counted").state))
        reader, kills, registered = host_store("reader"), 0, steps.index("create-package#1")
        assert [steps.count(f"put#{number}") for number in (1, 15)] == [1, 1]
        for at, step in enumerate(steps):
            if step.startswith("sync") or (step.startswith("put") and step not in {"put#1", "put#13", "put#15"}):
                continue  # the test of a single machine kills at each sync
            for side in SIDES if at == registered else sides:
                before, host = reader.packages.list_versions("late"), host_store(f"killed-{at}-{side}")
                assert dying.killed(step, side, **order_of(host.state)), (step, side)
                kills += 1
                new = [name for name in reader.packages.list_versions("late") if name not in before]
                assert len(new) == int(at > registered or (at == registered and side == "after")), (step, side)
                assert all(
                    open_package(store, "late", name).version == name for name in new for store in (reader, host)
                )
                written = write_package(host, "late", package_contents())
                assert not list(written.path.parent.glob(".new-*"))
    now_us = int(time.time() * 1e6)
    assert reader.packages.find_orphans(now_us - 10**9) == []
    orphans = reader.packages.find_orphans(now_us + 10**9)
    reader.state.storage.delete(orphans)
    fresh = host_store("fresh")
    versions = fresh.packages.list_versions("late")
    assert [open_package(fresh, "late", version).version for version in versions] == versions
    assert len(objects_of(fresh)) == 15 * len(versions)
    tell(f"{kills} kills, {len(orphans)} orphans deleted")


def test_without_the_storage_nothing_is_written_and_copies_are_read(
    tmp_path: Path, postgres_url: str, bucket_url: str
) -> None:
    assert bucket_url  # sets the credentials
    database_url = f"{postgres_url}{'&' if '?' in postgres_url else '?'}schema=test_{uuid.uuid4().hex}"
    (tmp_path / "moto").mkdir()

    def open_host(name: str, server: ObjectStorageServer) -> PackageStore:
        return PackageStore.of(ProjectState(tmp_path / name, database_url, server.address("p")), Settings())

    with running_object_storage(tmp_path / "moto") as server:
        one, two = open_host("one", server), open_host("two", server)
        write_package(one, "late", package_contents())
    assert open_package(one, "late", "000001").version == "000001"
    with pytest.raises(StoreError, match=r"cannot be downloaded: object storage .*does not answer"):
        open_package(two, "late", "000001")
    with pytest.raises(StoreError, match="does not answer"):
        write_package(one, "late", package_contents())
    assert one.packages.list_versions("late") == ["000001"]
    assert sorted(path.name for path in (one.state / "packages/late").iterdir()) == [".new.lock", "000001"]


def test_contents_of_any_size_are_shared(host_store: HostStore) -> None:
    one, two = host_store("one"), host_store("two")
    contents: PackageContents = replace(package_contents(), model=b"m" * 12_000_000, extra={"empty.py": ""})
    write_package(one, "late", contents)
    found = open_package(two, "late", "000001")
    assert (found.model_file.read_bytes(), found.extra) == (contents.model, {"empty.py": ""})


def test_a_package_that_was_signed_later_is_shared_with_its_signature(host_store: HostStore) -> None:
    one, two = host_store("one"), host_store("two")
    folder = write_package(one, "late", package_contents()).path
    signature = folder / "signature.json"
    text = signature.read_bytes()
    signature.unlink()
    one.packages.register("late", "000001", one.packages.upload("late", folder))
    assert not is_signed(one, "late", "000001")
    signature.write_bytes(text)  # killed before the other machines got it
    assert not is_signed(one, "late", "000001")
    sign_package(one, "late", "000001")
    assert is_signed(one, "late", "000001")
    assert open_package(two, "late", "000001").version == "000001"
