"""The metrics show which alerts are open, and how new the views' data was."""

from __future__ import annotations

from skewless.infra.alerts.alerts import Alert
from skewless.infra.verdicts.last_verdicts import Freshness
from skewless.serving.metrics.metrics import Metrics


def test_an_alert_is_shown_while_it_is_open_and_as_zero_after_it() -> None:
    kept = [Alert(name="drift", severity="warning", subject="fraud", message="m", at_us=1)]
    metrics = Metrics(alerts=lambda: kept)
    place = 'skewless_alert{name="drift",severity="warning",subject="fraud"}'
    assert f"{place} 1.0" in metrics.render().decode()
    kept.clear()
    assert f"{place} 0.0" in metrics.render().decode()


def test_the_newest_event_of_a_view_is_shown_in_seconds() -> None:
    found = [
        Freshness(view="a", hash="h", at_us=5, limit_us=0, newest_us=1_500_000),
        Freshness(view="b", hash="h", at_us=5, limit_us=0, newest_us=None),
    ]
    text = Metrics(freshness=lambda: found).render().decode()
    assert 'skewless_view_newest_event_seconds{view="a"} 1.5' in text
    assert 'view="b"' not in text
