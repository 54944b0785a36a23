"""Random requests, sound and broken, in random pieces: what is answered is what a strict parser reads."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.serving.http.raw_http import fuzz

CASES = 200


@pytest.mark.parametrize("first", range(0, 5 * CASES, CASES))
def test_what_is_answered_is_what_h11_reads(first: int) -> None:
    counts = asyncio.run(fuzz(range(first, first + CASES)))
    assert counts["cases"] == CASES
    assert counts["answered"] > CASES / 2
    assert counts["refused"] > CASES / 10
