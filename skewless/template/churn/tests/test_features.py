"""Tests of the features: given these rows, at this time, the vector is this.

Install ``skewless[testing]``, and run ``pytest``.
"""

import pytest

from skewless_testing import FeatureCase

MONDAY, NOON = "2026-01-12T00:00:00Z", "2026-01-12T12:00:00Z"


def test_the_latest_usage_counts_once_it_is_published(features: FeatureCase) -> None:
    """A row is published two hours after its event time."""
    features.rows("contract", {"customer_id": "c", "event_time": MONDAY, "plan": "basic", "monthly_fee": 9.99})
    features.rows("usage", {"customer_id": "c", "event_time": MONDAY, "hours_7d": 1.0})
    features.rows("usage", {"customer_id": "c", "event_time": "2026-01-12T11:00:00Z", "hours_7d": 5.0})
    vector = features.vector("churn_features", customer_id="c", at=NOON)
    vector.expect(plan="basic", hours_7d=1.0, fee_per_hour=pytest.approx(4.995), tickets_30d=None)


def test_old_usage_expires(features: FeatureCase) -> None:
    """After 14 days without a row the model sees a missing value."""
    features.rows("usage", {"customer_id": "c", "event_time": "2025-12-01T00:00:00Z", "hours_7d": 1.0})
    vector = features.vector("churn_features", customer_id="c", at=NOON)
    vector.expect(hours_7d=None)
    assert vector.status["usage"] == "EXPIRED"
