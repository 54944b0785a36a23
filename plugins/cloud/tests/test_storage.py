"""Objects in a folder and in a cloud: the same contract; and the local copies of a cloud's objects."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import obstore
import pytest

from skewless.contract.errors import DefinitionError, StoreError
from skewless.contract.settings import Settings
from skewless.infra.platform.storage.objects import ObjectStorage, StoredObject, digest_bytes
from skewless.infra.platform.storage.project_state import ProjectState, open_storage
from skewless_cloud.file_cache import FileCache
from skewless_cloud.storage import CloudStorage
from tests.servers.object_storage import BUCKET, CREDENTIALS, ObjectStorageServer, running_object_storage
from tests.worlds.waiting import until

NAME = "log/batch/weather/00000001.parquet"
MANY_BYTES = 10**12
MEBI = 1 << 20
HOURS_S = 7_200
DOWNLOAD = """
import sys
from pathlib import Path
from skewless.infra.platform.storage.objects import StoredObject
from skewless.infra.platform.storage.project_state import open_storage
root, url, name, size, stamp, digest = sys.argv[1:]
open_storage(Path(root), url, 10**12).local_path(StoredObject(name, int(size), stamp, digest))
"""


class SharedStorage(NamedTuple):
    """A storage that several machines use.

    Args:
        open: it as another machine opens it.
        alter: replaces the bytes of an object, as a stranger would.
    """

    open: Callable[[], ObjectStorage]
    alter: Callable[[str, bytes], object]


@pytest.fixture(params=["folder", "cloud"])
def shared_storage(request: pytest.FixtureRequest, tmp_path: Path) -> SharedStorage:
    """An empty storage of each kind."""
    if request.param == "folder":
        root = tmp_path / "shared"
        return SharedStorage(
            lambda: open_storage(root, None, MANY_BYTES), lambda name, data: (root / name).write_bytes(data)
        )
    url = request.getfixturevalue("bucket_url")
    machines = iter(range(100))
    store = machine(tmp_path / "stranger", url)._store
    return SharedStorage(
        lambda: machine(tmp_path / str(next(machines)), url), lambda name, data: obstore.put(store, name, data)
    )


def machine(root: Path, url: str, cache_bytes: int = MANY_BYTES) -> CloudStorage:
    """Return the storage as a machine with a folder of its own opens it."""
    storage = open_storage(root, url, cache_bytes)
    assert isinstance(storage, CloudStorage)
    return storage


def age(path: Path, seconds: float) -> None:
    """Let a copy look as if it was not used for some time."""
    os.utime(path, ns=(int((time.time() - seconds) * 1e9), path.stat().st_mtime_ns))


def copies(root: Path) -> set[str]:
    """Return the names of all files in a cache, also of unfinished ones."""
    return {path.name for path in (root / "cache").iterdir()} - {".lock", ".added"}


def test_an_object_is_read_as_it_was_put(shared_storage: SharedStorage) -> None:
    here = shared_storage.open()
    contents: list[bytes | memoryview] = [b"", b"rows", memoryview(b"many rows")[5:]]
    for number, data in enumerate(contents):
        stored = here.put(f"log/ü %/{number}.parquet", data)
        assert stored == (f"log/ü %/{number}.parquet", len(data), stored.stamp, digest_bytes(data))
        for storage in (here, shared_storage.open()):
            path = storage.local_path(stored)
            assert (path.read_bytes(), path.suffix) == (bytes(data), ".parquet")
            storage.verify(stored)


def test_objects_are_listed_by_folder(shared_storage: SharedStorage) -> None:
    storage = shared_storage.open()
    before_us = time.time_ns() // 1_000
    for name in ("a/1", "a/b/2", "ab/3"):
        storage.put(name, name.encode())
    listed = {item.name: item for item in storage.list_objects("a")}
    assert {name: item.size for name, item in listed.items()} == {"a/1": 3, "a/b/2": 5}
    assert all(abs(item.modified_us - before_us) < 60_000_000 for item in listed.values())
    assert list(storage.list_objects("b")) == []


def test_a_deleted_object_is_missing(shared_storage: SharedStorage) -> None:
    here = shared_storage.open()
    stored, other = here.put(NAME, b"rows"), here.put("log/other", b"others")
    here.delete([NAME, "log/never"])
    here.delete([])
    there = shared_storage.open()
    for read in (there.local_path, there.verify):
        with pytest.raises(StoreError, match=f"{NAME}: is missing"):
            read(stored)
    assert [item.name for item in there.list_objects("log")] == [other.name]


def test_a_file_may_be_put_twice(shared_storage: SharedStorage) -> None:
    """A process that was killed after its first call puts the file again."""
    here = shared_storage.open()
    path = here.staging_path()
    path.write_bytes(b"rows" * 1_000)
    first = here.put_file(NAME, path)
    second = here.put_file(NAME, path)
    assert (first.size, first.digest) == (second.size, second.digest) == (4_000, digest_bytes(b"rows" * 1_000))
    path.unlink()
    for storage in (here, shared_storage.open()):
        assert storage.local_path(second).read_bytes() == b"rows" * 1_000


@pytest.mark.parametrize("shared_storage", ["cloud", pytest.param("folder", marks=pytest.mark.soak)], indirect=True)
def test_a_large_file_is_stored_in_parts(shared_storage: SharedStorage, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(MEBI) * 70)
    stored = shared_storage.open().put_file(NAME, path)
    there = shared_storage.open()
    assert there.local_path(stored).read_bytes() == path.read_bytes()
    there.verify(stored)


@pytest.mark.parametrize("data", [b"ROWS", b"fewer or more"])
def test_an_altered_object_is_an_error(shared_storage: SharedStorage, data: bytes) -> None:
    stored = shared_storage.open().put(NAME, b"rows")
    shared_storage.alter(NAME, data)
    there = shared_storage.open()
    for read in (there.local_path, there.verify):
        with pytest.raises(StoreError, match=f"log file .*{NAME}: is corrupt"):
            read(stored)


@pytest.mark.parametrize("data", [b"ROWS", b"fewer or more", b""])
def test_an_altered_copy_is_fetched_again(bucket_url: str, tmp_path: Path, data: bytes) -> None:
    storage = machine(tmp_path, bucket_url)
    stored = storage.put(NAME, b"rows")
    storage.local_path(stored).write_bytes(data)
    assert storage.local_path(stored).read_bytes() == b"rows"


def test_a_restored_copy_is_not_fetched_again(bucket_url: str, tmp_path: Path) -> None:
    """Only its time differs."""
    storage = machine(tmp_path, bucket_url)
    stored = storage.put(NAME, b"rows")
    copy = storage.local_path(stored)
    copy.touch()
    inode = copy.stat().st_ino
    assert storage.local_path(stored).stat().st_ino == inode


def test_the_least_recently_used_copies_are_evicted(bucket_url: str, tmp_path: Path) -> None:
    storage = machine(tmp_path, bucket_url, cache_bytes=10_000)
    old, older, used = (storage.put(f"log/{name}", name.encode() * 1_000) for name in ("aa", "bb", "cc"))
    for stored, seconds in ((old, HOURS_S), (older, 2 * HOURS_S), (used, 3 * HOURS_S)):
        age(storage.local_path(stored), seconds)
    storage.local_path(used)
    recent = [storage.put(f"log/{number}", bytes([number]) * 2_000) for number in range(2)]
    assert copies(tmp_path) == {stored.digest for stored in (old, used, *recent)}
    more = [storage.put(f"log/{number}", bytes([number]) * 2_000) for number in range(2, 5)]
    assert copies(tmp_path) == {stored.digest for stored in (used, *recent, *more)}  # of the last hour, so all stay
    assert storage.local_path(older).read_bytes() == b"bb" * 1_000


def test_a_cache_looks_at_all_files_only_now_and_then(tmp_path: Path) -> None:
    """Small additions are counted over processes: each has a cache object of its own."""

    def add(number: int) -> Path:
        cache = FileCache(tmp_path / "cache", 32_000)
        stored = StoredObject("x", 300, "", f"{number:032}")
        with cache.add(stored) as copy:
            copy.write_bytes(bytes(300))
        age(cache.path(stored), HOURS_S - number)
        return cache.path(stored)

    paths = [add(number) for number in range(400)]
    present = [path.exists() for path in paths]
    assert present == sorted(present)  # the oldest are gone
    assert 100 <= sum(present) <= 107


def test_threads_share_one_download(bucket_url: str, tmp_path: Path) -> None:
    stored = machine(tmp_path / "writer", bucket_url).put(NAME, os.urandom(3 * MEBI))
    storage = machine(tmp_path / "reader", bucket_url)
    barrier = threading.Barrier(16)

    def read(_: int) -> tuple[int, str]:
        barrier.wait()
        path = storage.local_path(stored)
        return path.stat().st_ino, digest_bytes(path.read_bytes())

    with ThreadPoolExecutor(16) as pool:
        answers = set(pool.map(read, range(16)))
    assert {digest for _, digest in answers} == {stored.digest}
    assert len(answers) == 1


def test_copies_are_read_while_the_storage_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with running_object_storage(tmp_path) as server:
        url = server.address("shop")
        here = machine(tmp_path / "here", url)
        stored = here.put(NAME, b"rows")
        there = machine(tmp_path / "there", url)
    assert here.local_path(stored).read_bytes() == b"rows"
    for call in (
        lambda: there.local_path(stored),
        lambda: here.verify(stored),
        lambda: here.put("log/new", b"new"),
        lambda: here.delete([NAME]),
        lambda: list(here.list_objects("log")),
    ):
        with pytest.raises(StoreError, match="cannot be used: it does not answer") as refusal:
            call()
        assert (refusal.value.exit_code, refusal.value.thing) == (7, f"object storage s3://{BUCKET}/shop")
        assert not any(secret in str(refusal.value) for secret in CREDENTIALS.values())
    assert copies(tmp_path / "here") == {f"{stored.digest}.parquet"}


def test_an_interrupted_download_leaves_no_copy(bucket_url: str, tmp_path: Path) -> None:
    stored = machine(tmp_path / "writer", bucket_url).put(NAME, os.urandom(MEBI) * 70)
    root = tmp_path / "reader"
    words = [str(root), bucket_url, *map(str, stored)]
    with subprocess.Popen([sys.executable, "-c", DOWNLOAD, *words]) as process:
        until(lambda: any((root / "cache").glob("*.tmp")) or process.poll() is not None)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert all(name.endswith(".tmp") for name in copies(root))
    assert digest_bytes(machine(root, bucket_url).local_path(stored).read_bytes()) == stored.digest


def test_a_missing_bucket_is_named(bucket_url: str, tmp_path: Path) -> None:
    storage = machine(tmp_path, bucket_url.replace(BUCKET, "never-created"))
    with pytest.raises(StoreError, match=r"it answers 404 Not Found \(NoSuchBucket\)\. Fix: create the bucket"):
        storage.put(NAME, b"rows")


def test_missing_credentials_are_named(
    object_server: ObjectStorageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # this machine may have credentials
    with pytest.raises(StoreError, match=r"the environment has no credentials\. Fix: set credentials"):
        machine(tmp_path, object_server.address("x")).put(NAME, b"rows")


def test_a_project_has_a_prefix_of_its_own(bucket_url: str, tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: fraud\n")
    settings = Settings(storage_url=bucket_url, storage_cache_gb=0.5)
    state = pickle.loads(pickle.dumps(ProjectState.of(tmp_path, settings)))  # noqa: S301 - our own bytes
    assert state.storage is ProjectState.of(tmp_path, settings).storage
    state.storage.put(NAME, b"rows")
    assert [item.name for item in machine(tmp_path, bucket_url).list_objects("")] == [f"fraud/{NAME}"]


def test_without_an_address_objects_are_in_the_state_folder(tmp_path: Path) -> None:
    state = ProjectState.of(tmp_path, Settings())
    stored = state.storage.put(NAME, b"rows")
    assert state.storage.local_path(stored) == state / NAME


@pytest.mark.parametrize(
    "url", ["gs://b/x", "gs://b/x?endpoint=http://h:1", "az://c/x?account=a", "az://c/x?account=a&endpoint=https://h"]
)
def test_addresses_of_other_clouds_are_accepted(url: str, tmp_path: Path) -> None:
    """Without a server of theirs, only the configuration can be tested."""
    assert machine(tmp_path, url).staging_path().parent == tmp_path / "staging"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://bucket/x", r"is not an address we know \(got 'ftp'\)"),
        ("s3:///x", "is not an address we know"),
        ("s3://key:secret@bucket/x", "contains credentials"),
        ("s3://bucket/x?secret_access_key=secret", r"has an unknown option \(got 'secret_access_key'\)"),
        ("s3://bucket/x?endpoint=localhost:9000", "has an endpoint without a scheme"),
    ],
)
def test_other_addresses_are_rejected(url: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=f"setting 'storage_url': {problem}") as refusal:
        open_storage(tmp_path, url, MANY_BYTES)
    assert "secret'" not in str(refusal.value).replace("'secret_access_key'", "")


def test_plain_http_needs_an_endpoint_in_the_address(
    object_server: ObjectStorageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": object_server.endpoint, "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match="Fix: name the endpoint in storage_url"):
        machine(tmp_path, f"s3://{BUCKET}/x?region=us-east-1").put(NAME, b"rows")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "skewless_cloud.storage")
    with pytest.raises(DefinitionError, match=r"'s3' of skewless.storages: cannot be imported: .*obstore"):
        open_storage(tmp_path, f"s3://{BUCKET}/x", MANY_BYTES)
