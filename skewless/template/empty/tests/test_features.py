"""Tests of the features: given these events and rows, at this time, the vector is this.

Install ``skewless[testing]``, and run ``pytest``.

def test_the_sum_of_the_last_hour(features):
    features.events("STREAM", {"KEY": 1, "amount": 10.0, "TIME": "2026-01-15T11:30:00Z"})
    features.vector("SERVICE", KEY=1, at="2026-01-15T12:00:00Z").expect(spent_1h=10.0)
"""
