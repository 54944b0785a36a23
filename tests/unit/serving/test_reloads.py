"""A defect of one reload does not end the reloads of a server."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from structlog.testing import capture_logs

from skewless.serving.app import _watch_aliases
from skewless.serving.metrics.metrics import Metrics


def test_a_defect_of_a_reload_is_logged_and_the_next_reload_comes() -> None:
    reloads = 0

    async def run() -> None:
        repeated = asyncio.Event()

        async def refresh() -> list[str]:
            nonlocal reloads
            reloads += 1
            if reloads == 1:
                raise ZeroDivisionError
            repeated.set()
            return []

        serving: Any = SimpleNamespace(
            heartbeat=None,
            reload_seconds=0.0,
            models=SimpleNamespace(refresh=refresh),
            metrics=Metrics(),
            events=SimpleNamespace(refresh=lambda: None),
        )
        task = asyncio.create_task(_watch_aliases(serving))
        await asyncio.wait_for(repeated.wait(), 20)
        task.cancel()
        await asyncio.wait([task])

    with capture_logs() as logs:
        asyncio.run(run())
    assert reloads > 1
    assert [(line["event"], type(line["exc_info"])) for line in logs] == [("reload_failed", ZeroDivisionError)]
