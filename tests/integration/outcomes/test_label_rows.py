"""Label rows from outcomes: the same training set, and the same model, as from a table that says the same."""

from __future__ import annotations

from datetime import timedelta

import pytest

from skewless.contract.labels import KnownTime, Outcomes
from skewless.contract.spec import Split
from skewless.training.train import train
from tests.integration.outcomes.conftest import DAY, Loop

SPLIT = Split(test=timedelta(days=6), embargo=timedelta(days=1))


@pytest.mark.parametrize("known", ["arrived", "declared"])
def test_equal_rows_give_an_equal_model(loop: Loop, known: KnownTime) -> None:
    loop.predict(20, outcomes=True)
    loop.place.wait(DAY)
    by_outcome = loop.dataset(Outcomes(known=known), split=SPLIT)
    n = len(loop.known)
    assert by_outcome.counts["used"] == n == len(loop.ids) - 30
    assert by_outcome.counts["without_outcome"] == 30
    table = loop.write_table([*loop.known, *[None] * 30], loop.labels)
    by_table = loop.dataset(table, split=SPLIT)
    assert by_outcome.fingerprint == by_table.fingerprint
    models = [
        train(dataset, loop.use(labels, split=SPLIT), loop.place.project.store, threads=1, now_us=loop.place.now_us())
        for dataset, labels in ((by_outcome, Outcomes(known=known)), (by_table, table))
    ]
    assert len({each.package.model_file.read_bytes() for each in models}) == 1
    assert models[0].metrics == models[1].metrics
