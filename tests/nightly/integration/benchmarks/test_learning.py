"""The simulation of prevented outcomes at a small size: the loop closes, and weights count what exploration shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning import ARMS, Round, make_payments, plot, run, simulate, table
from benchmarks.server import own_server
from skewless.project import Project


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with own_server() as address:
        yield address


# In make test, tests/integration/outcomes has what weights and exploration are.
@pytest.mark.soak
def test_the_loop_closes(tmp_path: Path, url: str) -> None:
    found = simulate(tmp_path / "p", url, seed=3, rounds=1, payments=420, arms=("blind", "weighted"))
    assert list(found) == ["blind", "weighted"]
    for (only,) in found.values():
        assert isinstance(only, Round)
        assert 0 < only.approved <= 1
        assert only.log_loss > 0
    assert found["weighted"][0].effective < found["blind"][0].effective < 420
    # What a model without exploration shows of itself is better than it is.
    assert found["blind"][0].estimate < found["blind"][0].log_loss
    with Project(tmp_path / "p", clock=f"file:{tmp_path}/p/.skewless/clock", redis_url=url) as project:
        data = project.training_set("weighted")
        assert data.counts["predictions"] == 420
        assert data.counts["unobserved"] > 0
        assert set(np.unique(data.weights).tolist()) == {1.0, 20.0}
        assert project.replay().ok


def test_the_world_changes() -> None:
    rng = np.random.default_rng(0)
    risk = np.full(10, 0.2)
    before, after = (make_payments(rng, risk, 20_000, changed=changed) for changed in (False, True))
    for payments, bad in ((before, range(6)), (after, range(11, 14))):
        is_bad = np.isin([row["hour"] for row in payments.rows], list(bad))
        assert payments.fraud[is_bad].mean() > 2 * payments.fraud[~is_bad].mean()


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_weights_learn_what_decisions_prevent() -> None:
    found = run(3, 6, 1_400)
    value = {arm: values[:, -1, [*Round.__dataclass_fields__].index("value")] for arm, values in found.items()}
    assert (value["weighted"] > value["blind"]).all()
    assert value["all"].mean() > value["weighted"].mean() > value["plain"].mean()
    assert plot(found).startswith("<svg")
    assert len(list(table(found))) == 2 + len(ARMS)
