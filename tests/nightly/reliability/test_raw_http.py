"""Ten minutes of random requests: what is answered is what a strict parser reads."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.unit.serving.http.raw_http import fuzz

pytestmark = pytest.mark.soak
SECONDS = 600
_AT_ONCE = 1_000
_FIRST = 1_000_000  # seeds of the short form are below


def test_what_is_answered_is_what_h11_reads(tell: Callable[[str], None]) -> None:
    counts, seed, end = Counter[str](), _FIRST, time.monotonic() + SECONDS
    while time.monotonic() < end:
        counts += asyncio.run(fuzz(range(seed, seed + _AT_ONCE)))
        seed += _AT_ONCE
    for name, n in counts.most_common():
        tell(f"{n:>9} {name}")
    assert counts["answered"] > counts["cases"] / 2
    assert counts["refused"] > counts["cases"] / 10
