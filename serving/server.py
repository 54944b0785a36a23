"""The server process: everything opened, the application run, everything closed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from infra.durable import refused
from infra.last_parity import last_parity
from infra.online.guard import Guard
from infra.online.redis_store import RedisReader, RedisWriter
from infra.predictions.writer import PredictionWriter
from serving.app import Serving, create_app
from serving.events import Events, EventsConfig
from serving.metrics import Metrics
from serving.models import ModelTable
from serving.predictor import Predictor
from skewless.clock import Clock
from skewless.errors import PlaceError
from skewless.settings import Settings

_KEEP_ALIVE_SECONDS = 75


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """What a server needs to know; what is not in the settings, or was chosen against them, stands by itself."""

    repo: Path
    state: Path
    redis_url: str
    clock: Clock
    host: str
    port: int
    settings: Settings


def run_server(config: ServerConfig, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered and the log is written.

    Args:
        on_ready: told the server's URL once predictions are answered.

    Raises:
        PlaceError: the port is in use.
        PackageError, StalePlanError, StoreError: no champion can be served.
    """
    asyncio.run(_serve(config, on_ready))


async def _serve(config: ServerConfig, on_ready: Callable[[str], None]) -> None:
    metrics = Metrics(lambda: last_parity(config.state).values())
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(_listen(config.host, config.port))
        online = RedisReader(config.redis_url)
        stack.push_async_callback(online.close)
        writer = PredictionWriter(
            config.state / "predictions",
            capacity=config.settings.log_capacity,
            flush_seconds=config.settings.log_flush_seconds,
            on_drop=lambda n, reason: metrics.dropped.labels(reason).inc(n),
        )
        stack.callback(writer.close)
        models = ModelTable(repo=config.repo, state=config.state, online=online)
        await models.load()
        predictor = Predictor(
            online=online,
            clock=config.clock,
            log=writer,
            max_batch=config.settings.max_batch,
            guard=Guard.of_runs(config.state, [model.plan for model in models.all()]),
        )
        predictor.skew_us = _skew_us(config.redis_url)
        metrics.skew.set(predictor.skew_us / 1e6)
        events = Events(_events(config))
        stack.push_async_callback(events.close)
        serving = Serving(
            models=models,
            predictor=predictor,
            metrics=metrics,
            reload_seconds=config.settings.reload_seconds,
            ready=lambda: _reasons(predictor.skew_us, config.settings.skew_limit_ms),
            events=events,
        )
        await _run(serving, listener, config, on_ready)


def _events(config: ServerConfig) -> EventsConfig:
    return EventsConfig(
        state=config.state,
        redis_url=config.redis_url,
        stream_partitions=config.settings.stream_partitions,
        event_bytes=config.settings.event_bytes,
        kafka=config.settings.kafka,
    )


async def _run(
    serving: Serving, listener: socket.socket, config: ServerConfig, on_ready: Callable[[str], None]
) -> None:
    options = uvicorn.Config(
        create_app(serving),
        log_config=None,
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        loop="uvloop",
        http="httptools",
    )
    server = _Server(options)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not running.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    url = f"http://{config.host}:{listener.getsockname()[1]}"
    place = config.state / "server.json"
    try:
        _note(place, url)
        on_ready(url)
        await running
    finally:
        server.should_exit = True
        await asyncio.wait([running])
        place.unlink(missing_ok=True)


def _note(place: Path, url: str) -> None:
    try:
        place.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    except OSError as error:
        raise refused(place, error) from error


class _Server(uvicorn.Server):
    """Uvicorn raises the signal that stopped it again, which would end the process before the log is written."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, the event loop turns Nagle's delay off (40 ms a reply).
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PlaceError(
            f"address {host}:{port}",
            f"cannot be used: {error.strerror}",
            fix="choose another --port, or 0 for any free one",
        ) from error
    listener.listen(1024)
    return listener


def _skew_us(redis_url: str) -> int:
    probe = RedisWriter(redis_url)
    try:
        return abs(probe.clock_offset_us())
    finally:
        probe.close()


def _reasons(skew_us: int, limit_ms: float) -> dict[str, str]:
    if skew_us <= limit_ms * 1_000:
        return {}
    return {
        "clock": f"Redis and this server are {skew_us / 1e3:.0f} ms apart, over the limit of {limit_ms:.0f} ms: run NTP"
    }
