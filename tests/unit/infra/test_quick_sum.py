"""The sum of a file's bytes changes with any bit, and with pages that are exchanged, emptied or cut."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from skewless.infra.platform.storage.file_cache import FileCache
from skewless.infra.platform.storage.objects import StoredObject, digest_bytes
from skewless.infra.platform.storage.quick_sum import quick_sum

PAGE = 4_096
SIZES = (0, 1, 7, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE, (1 << 20) - 1, (1 << 20) + PAGE + 3)


def sum_of(path: Path, content: bytes) -> int:
    path.write_bytes(content)
    return quick_sum(path)


@pytest.mark.parametrize("size", SIZES)
def test_damage_changes_the_sum(tmp_path: Path, size: int) -> None:
    draw, path = random.Random(size), tmp_path / "file"
    content = draw.randbytes(size)
    whole = sum_of(path, content)
    assert quick_sum(path) == whole
    for _ in range(40 if size else 0):
        bit, damaged = draw.randrange(8 * size), bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        assert sum_of(path, bytes(damaged)) != whole
    if size > 2 * PAGE:
        assert sum_of(path, content[PAGE : 2 * PAGE] + content[:PAGE] + content[2 * PAGE :]) != whole
        assert sum_of(path, bytes(PAGE) + content[PAGE:]) != whole
        assert sum_of(path, content[:-PAGE]) != whole


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
