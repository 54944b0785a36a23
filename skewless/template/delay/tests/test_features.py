"""Tests of the features: given these events and rows, at this time, the vector is this.

Install ``skewless[testing]``, and run ``pytest``.
"""

from skewless_testing import FeatureCase

NOON = "2026-01-15T12:00:00Z"


def arrival(trip_id: str, at: str, delay: float) -> dict[str, object]:
    """Return an arrival of the line at a time of the day."""
    return {
        "trip_id": trip_id,
        "line": "line-01",
        "station": "station-05",
        "delay": delay,
        "arrived_at": f"2026-01-15T{at}:00Z",
    }


def test_the_delays_of_the_last_hour(features: FeatureCase) -> None:
    """Arrivals before the hour count in the week only."""
    features.events("arrivals", arrival("a", "10:00", 60.0), arrival("b", "11:30", 4.0), arrival("c", "11:45", 8.0))
    features.rows("stations", {"station": "station-05", "event_time": "2026-01-15T00:00:00Z", "platforms": 4})
    vector = features.vector("delay_features", line="line-01", station="station-05", due=NOON, at=NOON)
    vector.expect(mean_delay_1h=6.0, max_delay_1h=8.0, mean_delay_7d=24.0, platforms=4, works=None, hour=12)
