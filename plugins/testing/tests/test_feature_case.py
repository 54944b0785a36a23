"""The messages of a test case: which feature differs, and from which events and rows it was computed."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from plugins.testing.tests.small_project import write_definitions
from skewless.contract.errors import DefinitionError, RequestError, SourceError
from skewless.contract.plan import FeaturePlan
from skewless.infra.definitions.compiler.compile import compile_repo
from skewless_testing import FeatureCase, plugin

NINE = datetime(2026, 1, 15, 9, tzinfo=UTC)
NOON = "2026-01-15T12:00:00Z"


@pytest.fixture(scope="module")
def small_plan(tmp_path_factory: pytest.TempPathFactory) -> FeaturePlan:
    return compile_repo(write_definitions(tmp_path_factory.mktemp("small") / "repo")).plan


@pytest.fixture
def feature_case(small_plan: FeaturePlan) -> FeatureCase:
    return FeatureCase(small_plan)


def payment(at: str, amount: float | None, name: str) -> dict[str, Any]:
    return {"card": 1, "amount": amount, "shop": "a", "payment": name, "paid_at": f"2026-01-15T{at}:00Z"}


def test_a_failed_comparison_shows_the_events(feature_case: FeatureCase) -> None:
    feature_case.events(
        "payments", payment("11:30", 10.0, "p1"), payment("11:45", 2.5, "p2"), payment("11:46", -1.0, "p3")
    )
    feature_case.events("payments", payment("10:30", 4.0, "p4"), payment("11:50", 2.5, "p2"))
    feature_case.events("payments", payment("11:55", 8.0, "p5"), known_at="2026-01-15T12:00:01Z")
    vector = feature_case.vector("all", card=1, amount=5.0, at=NOON)
    vector.expect(spent_1h=12.5, payments_1h=2, card_now__shops_24h=1, std_6h=pytest.approx(3.97, abs=0.01))
    twice = "    not counted: 2026-01-15T11:50:00Z card=1 amount=2.5 shop=a payment=p2"
    late = "    not counted: 2026-01-15T11:55:00Z card=1 amount=8.0 shop=a payment=p5"
    with pytest.raises(AssertionError) as failure:
        vector.expect(spent_1h=20.5)
    assert str(failure.value).splitlines() == [
        "all at 2026-01-15T12:00:00Z for card=1 amount=5.0",
        "  card_now__spent_1h: expected 20.5, got 12.5",
        "    sum of amount over 1 h, from 2026-01-15T11:00:00Z to 2026-01-15T12:00:00Z (excluded)",
        "    2 events of payments count:",
        "      2026-01-15T11:30:00Z card=1 amount=10.0 shop=a payment=p1",
        "      2026-01-15T11:45:00Z card=1 amount=2.5 shop=a payment=p2",
        "    not counted: 2026-01-15T11:46:00Z card=1 amount=-1.0 shop=a payment=p3 (paid is not true)",
        "    not counted: 2026-01-15T10:30:00Z card=1 amount=4.0 shop=a payment=p4 (before the window)",
        f"{twice} (its id was accepted before)",
        f"{late} (accepted at 2026-01-15T12:00:01Z)",
    ]


def test_a_failed_comparison_shows_the_rows(feature_case: FeatureCase) -> None:
    old = {
        "card": 1,
        "limit": 100.0,
        "event_time": datetime(2026, 1, 15, 9, tzinfo=UTC),
        "created": "2026-01-15T09:00Z",
    }
    new = {**old, "limit": 50.0, "created": "2026-01-15T13:00:00Z"}
    feature_case.rows("card_facts", old, new)
    vector = feature_case.vector("all", {"card": "1", "amount": 5.0}, at=NOON)
    vector.expect({"limit": 100.0, "ratio": 0.05, "country": None, "level": None}, hours=None)
    assert vector.status == {"card_facts": "PRESENT", "plain_facts": "NOT_FOUND", "card_now": "PRESENT"}
    with pytest.raises(AssertionError) as failure:
        vector.expect(limit=50.0, ratio=0.1, level=3)
    text = str(failure.value)
    assert "card_facts__limit: expected 50.0, got 100.0" in text
    assert "row of card_facts: card=1 limit=100.0" in text
    assert re.search(r"not used: card=1 limit=50.0 .*\(known at 2026-01-15T13:00:00Z\)", text)
    assert "computed by ratio(limit, last_paid, amount, asked_at) from" in text
    assert "request field amount=5.0" in text
    assert "plain_facts__level: expected 3, got missing (None)" in text
    assert "view plain_facts has no row of this entity" in text
    expired = feature_case.vector("all", card=1, amount=5.0, at="2026-01-16T12:00:00Z")
    assert expired["limit"] is None
    assert "expired: older than 12 h" in expired.explain("limit")


def test_wrong_input_is_refused_with_its_name(feature_case: FeatureCase) -> None:
    with pytest.raises(SourceError, match=r"event of source 'payments': would be rejected: field 'amount'"):
        feature_case.events("payments", {**payment("11:30", 1.0, "p1"), "amount": "much"})
    with pytest.raises(DefinitionError, match=r"event source: is unknown .got 'pay'.*payments"):
        feature_case.events("pay")
    with pytest.raises(SourceError, match=r"row of view 'card_facts': has an unknown column 'limits'.*limit"):
        feature_case.rows("card_facts", {"limits": 1})
    with pytest.raises(SourceError, match="has no event_time"):
        feature_case.rows("card_facts", {"card": 1, "limit": 1.0})
    with pytest.raises(DefinitionError, match="feature view: is unknown"):
        feature_case.rows("cards", {"card": 1})
    with pytest.raises(RequestError, match="has no field 'amount'"):
        feature_case.vector("all", card=1, at=NOON)
    with pytest.raises(DefinitionError, match="argument 'at': is not a time"):
        feature_case.vector("all", card=1, amount=1.0, at="noon")
    with pytest.raises(DefinitionError, match=r"feature: is unknown .got 'limits'.*card_facts__limit"):
        feature_case.vector("all", card=1, amount=1.0, at=NOON).expect(limits=1)
    future = feature_case.rejection("payments", payment("11:30", 1.0, "p1"), known_at="2026-01-15T11:00:00Z")
    assert future is not None
    assert "future" in future


def test_a_case_takes_milliseconds(feature_case: FeatureCase) -> None:
    feature_case.events("payments", payment("11:30", 10.0, "p1"))
    feature_case.vector("all", card=1, amount=5.0, at=NOON)
    start = time.perf_counter()
    for minute in range(20):
        feature_case.vector("all", card=1, amount=5.0, at=f"2026-01-15T12:{minute:02d}:00Z")
    assert (time.perf_counter() - start) / 20 < 0.25  # about 5 ms on an idle core


def test_the_plugin_loads_nothing_of_the_product() -> None:
    assert {name for name in vars(plugin) if name[0] not in "_@"} <= {
        "annotations", "warnings", "Path", "TYPE_CHECKING", "pytest", "pytest_addoption", "feature_plan", "features",
    }  # fmt: skip
