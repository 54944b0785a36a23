"""Tests of the features: given these events and rows, at this time, the vector is this.

Install ``skewless[testing]``, and run ``pytest``.
"""

import pytest

from skewless_testing import FeatureCase

CARD, SHOP = 7, "shop-01"
NOON = "2026-01-15T12:00:00Z"


def paid(payment_id: str, at: str, amount: float) -> dict[str, object]:
    """Return a payment of the card at a time of the day."""
    return {
        "payment_id": payment_id,
        "card_id": CARD,
        "shop_id": SHOP,
        "amount": amount,
        "paid_at": f"2026-01-15T{at}:00Z",
    }


def test_a_burst_of_payments_is_seen_at_once(features: FeatureCase) -> None:
    """Count the payments of the last hour, each once; the payment of the request itself is not one of them."""
    features.events("payments", paid("a", "11:30", 10.0), paid("b", "11:58", 30.5), paid("a", "11:59", 10.0))
    vector = features.vector("fraud_features", card_id=CARD, shop_id=SHOP, amount=50.0, paid_at=NOON, at=NOON)
    vector.expect(payments_1h=2, spent_1h=40.5, shops_1h=1, max_amount_3d=30.5, hour=12)


def test_a_late_event_counts_from_its_arrival(features: FeatureCase) -> None:
    """A payment that arrives at 12:01 is unknown at noon, in training and in serving."""
    features.events("payments", paid("a", "11:30", 10.0), known_at="2026-01-15T12:01:00Z")
    at_noon = features.vector("fraud_features", card_id=CARD, shop_id=SHOP, amount=50.0, paid_at=NOON, at=NOON)
    at_noon.expect(payments_1h=0, spent_1h=None)
    later = "2026-01-15T12:02:00Z"
    vector = features.vector("fraud_features", card_id=CARD, shop_id=SHOP, amount=50.0, paid_at=later, at=later)
    vector.expect(payments_1h=1, spent_1h=10.0)


def test_an_amount_is_compared_with_the_usual_amount(features: FeatureCase) -> None:
    """The latest row counts; without one the ratio is missing."""
    row = {"card_id": CARD, "created": "2026-01-14T01:00:00Z", "event_time": "2026-01-14T00:00:00Z"}
    features.rows("card_days", {**row, "mean_amount_7d": 20.0, "country": "DE"})
    vector = features.vector("batch_features", card_id=CARD, shop_id=SHOP, amount=50.0, paid_at=NOON, at=NOON)
    vector.expect(amount_ratio=pytest.approx(2.5), country="DE", refund_share=None)
    assert vector.status["shop_risk"] == "NOT_FOUND"
