"""The metrics show which alerts are open, and how new the views' data was."""

from __future__ import annotations

import asyncio
import threading

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.models.verdicts.last_verdicts import Freshness, LastParity
from skewless.infra.platform.alerts.alerts import Alert
from skewless.serving.metrics.metrics import Metrics, render_all_workers


def read(metrics: Metrics) -> str:
    return asyncio.run(render_all_workers(metrics, None)).decode()


def test_an_alert_is_shown_while_it_is_open_and_as_zero_after_it() -> None:
    kept = [Alert(name="drift", severity="warning", subject="fraud", message="m", at_us=1)]
    metrics = Metrics(alerts=lambda: kept)
    place = 'skewless_alert{name="drift",severity="warning",subject="fraud"}'
    assert f"{place} 1.0" in read(metrics)
    kept.clear()
    assert f"{place} 0.0" in read(metrics)


def test_while_the_database_is_away_the_last_values_stay_and_that_is_logged_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error: StoreError | None = None

    def read_alerts() -> list[Alert]:
        if error is not None:
            raise error
        return [Alert(name="drift", severity="warning", subject="fraud", message="m", at_us=1)]

    metrics = Metrics(alerts=read_alerts)
    shown = read(metrics)
    error = StoreError("database", "cannot be used", fix="start it")
    assert [line for line in read(metrics).splitlines() if "skewless" in line] == [
        line for line in shown.splitlines() if "skewless" in line
    ]
    read(metrics)
    assert "".join(capsys.readouterr()).count("checks_not_read") == 1


async def test_a_database_that_does_not_answer_delays_no_scrape() -> None:
    released, calls = threading.Event(), []

    def read_parity() -> list[LastParity]:
        calls.append(1)
        released.wait(30)
        return []

    metrics = Metrics(parity=read_parity)
    async with asyncio.timeout(20):
        for _ in range(3):
            await render_all_workers(metrics, None)
    released.set()
    assert len(calls) == 1, "no threads pile up"


def test_the_newest_event_of_a_view_is_shown_in_seconds() -> None:
    found = [
        Freshness(view="a", hash="h", at_us=5, limit_us=0, newest_us=1_500_000),
        Freshness(view="b", hash="h", at_us=5, limit_us=0, newest_us=None),
    ]
    text = read(Metrics(freshness=lambda: found))
    assert 'skewless_view_newest_event_seconds{view="a"} 1.5' in text
    assert 'view="b"' not in text
