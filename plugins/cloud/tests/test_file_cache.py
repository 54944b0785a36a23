"""Local copies of the objects of a cloud: private, whole, and deleted if nothing needs them."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from skewless.infra.platform.storage.objects import FolderStorage, StoredObject, digest_bytes
from skewless_cloud.file_cache import FileCache
from tests.integration.cli.test_state_folder import readable_by_others, umask

__all__ = ["umask"]


def test_a_copy_that_rots_is_a_copy_no_more(tmp_path: Path) -> None:
    content, draw = random.Random(0).randbytes(9_999), random.Random(1)
    stored = StoredObject("log/a.parquet", len(content), "tag", digest_bytes(content))
    with FileCache(tmp_path / "cache", 10**9).add(stored) as copy:
        copy.write_bytes(content)
    path = FileCache(tmp_path / "cache", 10**9).find(stored)
    assert path is not None
    for _ in range(100):
        stat, bit, damaged = path.stat(), draw.randrange(8 * len(content)), bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert FileCache(tmp_path / "cache", 10**9).find(stored) is None
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert FileCache(tmp_path / "cache", 10**9).find(stored) == path


def test_each_copy_of_an_object_of_a_cloud_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    cache, stored = FileCache(tmp_path / "cache", 1_000_000), StoredObject("log/a.parquet", 3, "tag", "digest")
    with cache.add(stored) as copy:
        copy.write_bytes(b"abc")
    assert umask in {0o000, 0o022, 0o277}
    assert cache.path(stored).read_bytes() == b"abc"
    assert readable_by_others(tmp_path) == {}
    assert len(list((tmp_path / "cache").iterdir())) == 3, "the copy, the lock and the count"


def test_copies_that_no_log_has_are_deleted(tmp_path: Path) -> None:
    cache, stored = FileCache(tmp_path / "cache", 1_000), {}
    for name in ("kept", "old", "new"):
        data = name.encode()
        stored[name] = StoredObject(f"log/{name}.parquet", len(data), "", digest_bytes(data))
        with cache.add(stored[name]) as path:
            path.write_bytes(data)
    for name in ("kept", "old"):
        long_ago = time.time() - 7_200
        os.utime(cache.path(stored[name]), (long_ago, cache.path(stored[name]).stat().st_mtime))
    assert cache.delete_others(lambda: {stored["kept"].digest}) == 1
    assert [cache.find(item) is not None for item in stored.values()] == [True, False, True]
    cache.delete(stored["new"])
    cache.delete(stored["new"])
    assert cache.find(stored["new"]) is None
    assert FolderStorage(tmp_path).delete_unknown_copies(set) == 0
