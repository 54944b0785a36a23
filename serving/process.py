"""One serving process: everything opened, the application run, everything closed."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import uvicorn
import uvloop

from skewless.contract.settings import Settings
from skewless.infra.access.key_file import KeyFile
from skewless.infra.alerts.alerts import open_alerts
from skewless.infra.host.processes import ProcessRecord
from skewless.infra.online.marker_history import MarkerHistory
from skewless.infra.online.port import OnlineReader
from skewless.infra.online.store import open_online_reader, open_online_store
from skewless.infra.outcomes.writer import OutcomeWriter
from skewless.infra.plans.applied_plan import AppliedPlanReader
from skewless.infra.predictions.writer import PredictionWriter
from skewless.infra.runtimes.candidates import ScoringTarget
from skewless.infra.verdicts.last_verdicts import last_freshness, last_parity
from skewless.serving.access.gate import OpenAccess, open_access
from skewless.serving.access.rules import is_loopback
from skewless.serving.announcement import announcing
from skewless.serving.app import Serving, create_app, hot_routes
from skewless.serving.events import Events
from skewless.serving.http.fair_queue import FairQueue
from skewless.serving.http.feedback_routes import Feedback
from skewless.serving.http.hot_protocol import fast_lane
from skewless.serving.http.http_server import Listener, run_http
from skewless.serving.http.listening import bind, listen_privately
from skewless.serving.http.tls import TlsOptions, tls_options
from skewless.serving.http.wire_limits import BodyBudget, WireLimits
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.routes import RolloutCountsFile
from skewless.serving.models.table import ModelTable
from skewless.serving.peer_workers import PeerWorkers, socket_of
from skewless.serving.prediction.predictor import Predictor, PredictorLimits
from skewless.serving.server_config import ServerConfig
from skewless.serving.shutdown import Shutdown, on_signals, report_crashes

_KEEP_ALIVE_SECONDS = 75
_YOUNG_OBJECTS = 20_000  # a batch makes thousands, which go by themselves
_SWITCH_S = 1e-3
_LAST_SECONDS = 30  # for requests under way, once the server no longer listens


async def serve(
    config: ServerConfig,
    link: socket.socket,
    shutdown: Shutdown,
    on_ready: Callable[[], None],
    *,
    metrics: Metrics,
    peers: PeerWorkers | None = None,
) -> None:
    """Answer requests until the shutdown, then write the log.

    Args:
        link: bound; it listens once everything is ready.
        peers: the other workers; None: there are none.

    Raises:
        PackageError, StalePlanError, StoreError: no champion can be served.
    """
    async with AsyncExitStack() as stack:
        settings = config.settings
        marker_history = MarkerHistory.from_runs(config.state, [])
        online = open_online_reader(config.redis_url, settings.feature_timeout_ms / 1_000, marker_history.refresh_async)
        stack.push_async_callback(online.close)
        writer = PredictionWriter(
            config.state / "predictions",
            capacity=config.settings.log_capacity,
            flush_seconds=config.settings.log_flush_seconds,
            on_drop=_counting_drops(metrics),
        )
        stack.callback(writer.close)
        models = _models(config, online, marker_history, metrics)
        await models.load()
        predictor = _predictor(config, online, writer, marker_history, metrics)
        stack.push_async_callback(predictor.close)
        counts_file = RolloutCountsFile(config.state, models.routes, config.clock)
        counts_file.start()
        stack.push_async_callback(counts_file.close)
        events = Events(config.state, settings.stream_url or config.redis_url, config.store, settings)
        stack.push_async_callback(events.close)
        serving = Serving(
            models=models,
            predictor=predictor,
            metrics=metrics,
            clock=config.clock,
            reload_seconds=settings.reload_seconds,
            deadline_s=settings.deadline_ms / 1_000,
            body_bytes=settings.body_bytes,
            ready=lambda: _reasons(shutdown, predictor.skew_us, settings, models, writer),
            beat=_beat(config, models, writer, stack),
            events=events,
            feedback=Feedback(OutcomeWriter(config.state), models, metrics, config.clock, most=settings.max_batch),
            peers=peers,
            access=open_access(
                settings, config.host, KeyFile(config.state), config.clock.now_us, share=1 / config.workers
            ),
            local=is_loopback(config.host),
        )
        entrances = _entrances(serving, link, _wire_limits(settings, events), tls_options(settings, config.repo))
        _settle_down()
        await run_http(entrances, shutdown, settings.drain_seconds, on_ready)


def _models(config: ServerConfig, online: OnlineReader, marker_history: MarkerHistory, metrics: Metrics) -> ModelTable:
    settings = config.settings
    return ModelTable(
        repo=config.repo,
        state=config.state,
        store=config.store,
        online=online,
        marker_history=marker_history,
        metrics=metrics,
        keep=settings.keep_versions,
        place=ScoringTarget(second=settings.second_runtime),
    )


def _settle_down() -> None:
    """Take what stands now out of the garbage collector's sight, and let threads give way to the loop sooner."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
    sys.setswitchinterval(_SWITCH_S)


def metrics_of(config: ServerConfig) -> Metrics:
    """Return the metrics of one process, which also show what is kept of checks: parity, freshness, open alerts."""
    state = config.state
    return Metrics(
        parity=lambda: last_parity(state).values(),
        alerts=lambda: open_alerts(state),
        freshness=lambda: last_freshness(state).values(),
    )


def _predictor(
    config: ServerConfig,
    online: OnlineReader,
    writer: PredictionWriter,
    marker_history: MarkerHistory,
    metrics: Metrics,
) -> Predictor:
    predictor = Predictor(
        online=online,
        clock=config.clock,
        log=writer,
        limits=PredictorLimits.of(config.settings),
        marker_history=marker_history,
        metrics=metrics,
    )
    predictor.skew_us = _skew_us(config.redis_url)
    metrics.skew.set(predictor.skew_us / 1e6)
    return predictor


def _counting_drops(metrics: Metrics) -> Callable[[int, str], None]:
    """Return what the log's thread may call: series belong to the loop."""
    loop = asyncio.get_running_loop()

    def count(n: int, reason: str) -> None:
        loop.call_soon_threadsafe(lambda: metrics.dropped(reason).inc(n))

    return count


def _wire_limits(settings: Settings, events: Events) -> WireLimits:
    longer = tuple((path, events.most_bytes) for path in ("/events/", "/push"))
    return WireLimits(
        body_bytes=settings.body_bytes,
        header_bytes=settings.header_bytes,
        unfinished_bytes=settings.unfinished_body_bytes,
        wait_seconds=settings.max_wait_ms / 1_000,
        keep_alive_seconds=_KEEP_ALIVE_SECONDS,
        longer=longer,
    )


def _entrances(serving: Serving, link: socket.socket, limits: WireLimits, tls: TlsOptions) -> list[Listener]:
    """Return the way in for clients and, for a worker, the one for its peers, who get answers of it alone."""
    bodies = BodyBudget(limits.unfinished_bytes)
    turns = FairQueue(serving.predictor.admission, bodies, wait_s=limits.wait_seconds, metrics=serving.metrics)
    public = Listener(link=link, options=_options(serving, limits, turns, **tls))
    if serving.peers is None:
        return [public]
    place = socket_of(serving.peers.folder, serving.peers.number)
    alone = replace(serving, peers=None, access=OpenAccess(), local=True)
    return [public, Listener(link=listen_privately(place), options=_options(alone, limits, turns, lifespan="off"))]


def _options(
    serving: Serving,
    limits: WireLimits,
    turns: FairQueue,
    **more: Any,  # noqa: ANN401 - of uvicorn
) -> uvicorn.Config:
    routes = hot_routes(serving)
    return uvicorn.Config(
        create_app(serving, routes),
        log_config=None,
        log_level="error",  # what is wrong with a request is told to who sent it
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_LAST_SECONDS,
        http=fast_lane(routes, limits, turns.bodies, turns),
        **more,
    )


def _skew_us(redis_url: str) -> int:
    probe = open_online_store(redis_url)
    try:
        return abs(probe.clock_offset_us())
    finally:
        probe.close()


def _beat(
    config: ServerConfig, models: ModelTable, writer: PredictionWriter, stack: AsyncExitStack
) -> Callable[[], None]:
    """Return what says that this process runs, on which plan, what it serves, and whether its log takes rows."""
    presence, plan = ProcessRecord(config.state, "server"), AppliedPlanReader(config.state)
    stack.callback(presence.close)

    def beat() -> None:
        served = {model.name: model.version for model in models.all()}
        presence.beat(plan.hash(), {"models": served, "refused": models.problems, "log": writer.trouble})

    return beat


def _reasons(
    shutdown: Shutdown, skew_us: int, settings: Settings, models: ModelTable, writer: PredictionWriter
) -> dict[str, str]:
    if shutdown.asked:
        return {"server": "it is going down"}
    reasons = {f"model {name}": why for name, why in models.unserved(settings.required_models).items()}
    needing = sorted(model.name for model in models.all() if model.package.spec.log == "required")
    if writer.trouble is not None and needing:
        reasons["prediction log"] = f"cannot be written ({writer.trouble}), and is required by {', '.join(needing)}"
    limit_ms = settings.skew_limit_ms
    if skew_us > limit_ms * 1_000:
        reasons["clock"] = (
            f"the store and this server are {skew_us / 1e3:.0f} ms apart, over the limit of {limit_ms:.0f} ms: run NTP"
        )
    return reasons


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
