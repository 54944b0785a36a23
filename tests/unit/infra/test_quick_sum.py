"""The sum of a file's bytes changes with any bit, and with pages that are exchanged, emptied or cut."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

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
