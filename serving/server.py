"""The server of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import uvloop

from skewless.serving.announcement import announcing
from skewless.serving.http.listening import bind
from skewless.serving.process import metrics_of, serve
from skewless.serving.server_config import ServerConfig
from skewless.serving.shutdown import Shutdown, on_signals, report_crashes


def run_server(config: ServerConfig, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered and the log is written.

    A second signal ends what is left at once.

    Args:
        on_ready: told the server's URL once predictions are answered.

    Raises:
        PlaceError: the port is in use.
        PackageError, StalePlanError, StoreError: no champion can be served.
    """
    report_crashes()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, on_ready))


async def _serve(config: ServerConfig, on_ready: Callable[[str], None]) -> None:
    shutdown = Shutdown()
    with bind(config.host, config.port) as link, on_signals(shutdown):
        config = replace(config, port=link.getsockname()[1])
        with announcing(config, on_ready) as ready:
            await serve(config, link, shutdown, ready, metrics=metrics_of(config))
