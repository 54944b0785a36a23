"""The check of each run of `make test`: a template's test of features passes, and a wrong one shows the events."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from skewless.infra.definitions.compiler.compile import compile_repo
from skewless_testing import FeatureCase
from tests.worlds.requirements import ROOT

TEMPLATE = ROOT / "skewless/template/fraud"
PAID = {"card_id": 7, "shop_id": "shop-01", "paid_at": "2026-01-15T11:58:00Z"}
NOON = "2026-01-15T12:00:00Z"


def test_a_vector_is_that_of_the_given_events_and_a_difference_shows_them(tmp_path: Path) -> None:
    features = FeatureCase(compile_repo(Path(shutil.copytree(TEMPLATE, tmp_path / "repo"))).plan)
    features.events(
        "payments", {**PAID, "payment_id": "a", "amount": 10.0}, {**PAID, "payment_id": "b", "amount": 30.5}
    )
    vector = features.vector("fraud_features", card_id=7, shop_id="shop-01", amount=50.0, paid_at=NOON, at=NOON)
    vector.expect(payments_1h=2, spent_1h=40.5)
    with pytest.raises(AssertionError, match=r"spent_1h: expected 41\.5, got 40\.5(.|\n)*payment_id=b"):
        vector.expect(spent_1h=41.5)
