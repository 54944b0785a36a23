"""SEMANTICS 1.4, 2.3: a run that is killed at any durable step is made good by the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.infra.killed import KILL, killed_again_and_again, shuffled_steps
from tests.integration.infra.world import World


@pytest.fixture
def world(tmp_path: Path, server_url: str) -> World:
    return World(root=tmp_path, url=server_url)


def test_1_4_a_killed_run_is_made_good_by_the_next(world: World) -> None:
    """Kill around the start, the append, the progress, the rows and the marker."""
    assert set(killed_again_and_again(world, (1, 3, 5, 7, 8, 9, 10))) == {KILL}


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_soak_every_durable_step_is_killed_five_times(world: World, seed: int) -> None:
    steps = shuffled_steps(last=13, times_each=5, seed=seed)
    codes = killed_again_and_again(world, steps)
    # The last step may lie beyond the end of a run that had less to do.
    assert codes[KILL] >= 60, f"seed {seed}, steps {steps}, exit codes {dict(codes)}"
    assert set(codes) <= {KILL, 0}
