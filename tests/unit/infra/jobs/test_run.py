"""Names of runs: read back as they were written, sorted, refused where they are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.errors import RequestError
from skewless.infra.platform.jobs.run import Run, RunId

NAMES = st.from_regex(r"[a-z]{1,9}( [a-z][a-z0-9_-]{0,9})?", fullmatch=True)


@given(NAMES, st.integers(0, 4_000_000_000_000_000), st.integers(1, 12))
def test_a_name_is_read_back(job: str, tick_us: int, attempt: int) -> None:
    run_id = RunId(job=job, tick_us=tick_us, attempt=attempt)
    assert RunId.parse(str(run_id)) == run_id
    assert "/" not in str(run_id)
    assert " " not in str(run_id)


@pytest.mark.parametrize("text", ["", "a", "a@", "a@20260115", "a@20261315T000000Z", "../a@20260115T000000Z", "a@b+0"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        RunId.parse(text)
    assert caught.value.value == text


def test_a_run_tells_how_long_it_took() -> None:
    run = Run(id=RunId(job="a", tick_us=0), cause="c", token=1, started_us=5, state="done", ended_us=2_500_005)
    assert run.seconds == 2.5
    assert run.as_dict()["id"] == "a@19700101T000000Z"
