"""The metrics show what parity last found."""

from __future__ import annotations

import asyncio

from skewless.infra.models.verdicts.last_verdicts import LastParity
from skewless.serving.metrics.metrics import Metrics, render_all_workers


def test_the_last_verdict_of_each_view_is_shown_whenever_metrics_are_read() -> None:
    kept = [
        LastParity(view="a", hash="h", at_us=1, compared=9, mismatches=3, by_cause={"value": 2, "lost": 1}),
        LastParity(view="b", hash="h", at_us=1, compared=4, mismatches=0),
    ]
    metrics = Metrics(lambda: kept)
    text = asyncio.run(render_all_workers(metrics, None)).decode()
    assert 'skewless_parity_mismatches{view="a",cause="value"} 2.0' in text
    assert 'skewless_parity_mismatches{view="a",cause="lost"} 1.0' in text
    assert 'skewless_parity_compared{view="b"} 4.0' in text
    kept[0] = LastParity(view="a", hash="h", at_us=2, compared=5, mismatches=0)
    text = asyncio.run(render_all_workers(metrics, None)).decode()
    assert 'skewless_parity_mismatches{view="a",cause="value"} 0.0' in text
    assert 'skewless_parity_compared{view="a"} 5.0' in text
