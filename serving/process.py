"""One serving process: opens all resources, runs the application, and closes the resources."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import uvicorn
import uvloop

from skewless.contract.errors import StoreError
from skewless.contract.loopback import is_loopback
from skewless.contract.settings import Settings
from skewless.infra.definitions.plans.applied_plan import AppliedPlanReader
from skewless.infra.log.spool import Shipper
from skewless.infra.models.runtimes.candidates import ScoringTarget
from skewless.infra.platform.access.api_keys import KeyStore
from skewless.infra.platform.host.plugins import load_plugins
from skewless.infra.platform.host.processes import ProcessRecord
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.port import OnlineReader
from skewless.infra.reads.online.store import open_online_reader, open_online_store
from skewless.infra.records.outcomes.log import OutcomeWriter, outcome_spool
from skewless.infra.records.predictions.segments import prediction_spool
from skewless.infra.records.predictions.writer import PredictionWriter
from skewless.serving.access.gate import Access, OpenAccess, open_access
from skewless.serving.app import ServingContext, create_app, hot_routes
from skewless.serving.doors import DoorContext, open_doors
from skewless.serving.events import EventForwarder
from skewless.serving.garbage import QuietCollector, start_collector
from skewless.serving.http.fair_queue import FairQueue
from skewless.serving.http.feedback_routes import Feedback
from skewless.serving.http.hot_protocol import make_protocol
from skewless.serving.http.http_server import Listener, run_http
from skewless.serving.http.sockets import bind, listen_on_path, reserve_grpc_port
from skewless.serving.http.tls import watch_certificate
from skewless.serving.http.wire_limits import BodyBudget, WireLimits
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.metrics.process_metrics import make_metrics
from skewless.serving.metrics.telemetry import open_telemetry
from skewless.serving.models.table import ModelTable
from skewless.serving.models.traffic_policies import RolloutCountsWriter
from skewless.serving.peer_workers import PeerWorkers, socket_of
from skewless.serving.platform import open_routes
from skewless.serving.prediction.predictor import Predictor, PredictorLimits
from skewless.serving.server_config import ServerConfig, announce_server
from skewless.serving.shutdown import Shutdown, on_signals, report_crashes

_SWITCH_S = 1e-3  # the threads of the log yield to the event loop sooner
_CLOCK_SECONDS = 60.0  # between two measurements of the clock's offset
_LAST_SECONDS = 30  # for requests in progress after the server stops listening


async def serve(
    config: ServerConfig,
    sock: socket.socket,
    shutdown: Shutdown,
    on_ready: Callable[[], None],
    *,
    metrics: Metrics,
    peers: PeerWorkers | None = None,
) -> None:
    """Serve requests until the shutdown, then write the rest of the log.

    Args:
        sock: a bound socket; it listens once everything is ready.
        peers: the other workers; None: this is the only worker.

    Raises:
        PackageError, StalePlanError, StoreError: no champion can be served.
    """
    config.state.remember_reads()
    settings = config.settings
    async with AsyncExitStack() as stack:
        begin_trace = open_telemetry(metrics, stack)
        marker_history = MarkerHistory.from_runs(config.state, [])
        online = open_online_reader(config.redis_url, settings.feature_timeout_ms / 1_000, marker_history.refresh_async)
        stack.push_async_callback(online.close)
        writer, outcomes, shipper = _open_logs(config, metrics, stack)
        models = _models(config, online, marker_history, metrics)
        await models.load()
        predictor = _predictor(config, online, writer, marker_history, metrics, traced=begin_trace is not None)
        stack.push_async_callback(predictor.close)
        stack.callback(asyncio.create_task(_watch_clock(predictor, config.redis_url)).cancel)
        counts = RolloutCountsWriter(config.state, models.policies, config.clock)
        await counts.start()
        stack.push_async_callback(counts.close)
        access = _open_access(config, stack)
        serving = ServingContext(
            models=models,
            predictor=predictor,
            metrics=metrics,
            clock=config.clock,
            reload_seconds=settings.reload_seconds,
            deadline_s=settings.deadline_ms / 1_000,
            body_bytes=settings.body_bytes,
            ready=lambda: _reasons(shutdown, predictor.skew_us, settings, models, writer),
            details=lambda: _details(config.state.database.down_s(), shipper) | access.problems(),
            heartbeat=_make_heartbeat(config, models, writer, shipper, stack),
            events=_open_events(config, stack),
            feedback=Feedback(outcomes, models, metrics, config.clock, max_rows=settings.max_batch),
            peers=peers,
            access=access,
            local=is_loopback(settings.host),
            platform=open_routes(settings.platform, os.environ),
            added={name: open_added() for name, open_added in load_plugins("skewless.routes").items()},
            begin_trace=begin_trace,
        )
        limits = WireLimits.of(settings, serving.events.max_bytes)
        listeners, queue = _listeners(serving, sock, limits, watch_certificate(settings, config.repo, metrics))
        open_doors(DoorContext(config, listeners[0], serving, limits, queue, shutdown, stack))
        start_collector()
        await run_http(listeners, shutdown, settings.drain_seconds, on_ready)


def _open_events(config: ServerConfig, stack: AsyncExitStack) -> EventForwarder:
    url = config.settings.stream_url or config.redis_url
    events = EventForwarder(config.state, url, config.store, config.settings)
    stack.push_async_callback(events.close)
    return events


def _open_access(config: ServerConfig, stack: AsyncExitStack) -> Access:
    settings = config.settings
    # Only shared rates need the name: a server may have no model.
    project = AppliedPlanReader(config.state).read().project if settings.rate_limit == "redis" else ""
    keys, now_us = KeyStore(config.state), config.clock.now_us
    access = open_access(settings, keys, now_us, project=project, redis_url=config.redis_url)
    stack.callback(access.close)
    return access


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
        scoring_target=ScoringTarget(second=settings.second_runtime),
    )


def _predictor(
    config: ServerConfig,
    online: OnlineReader,
    writer: PredictionWriter,
    marker_history: MarkerHistory,
    metrics: Metrics,
    *,
    traced: bool,
) -> Predictor:
    predictor = Predictor(
        online=online,
        clock=config.clock,
        log=writer,
        limits=PredictorLimits.of(config.settings),
        marker_history=marker_history,
        metrics=metrics,
        skew_us=_skew_us(config.redis_url),
        traced=traced,
    )
    metrics.skew.watch(lambda: predictor.skew_us / 1e6)
    return predictor


def _open_logs(
    config: ServerConfig, metrics: Metrics, stack: AsyncExitStack
) -> tuple[PredictionWriter, OutcomeWriter, Shipper]:
    """Return the writers of predictions and outcomes, and the thread that ships their files."""
    sys.setswitchinterval(_SWITCH_S)
    settings, spools = config.settings, (prediction_spool(config.state), outcome_spool(config.state))
    shipper = Shipper(spools, int(settings.local_log_mb * 1e6) if settings.local_log_mb else None)
    stack.callback(shipper.close)
    metrics.files_waiting.watch(lambda: shipper.files_waiting)
    loop = asyncio.get_running_loop()

    def count_dropped(n: int, reason: str) -> None:
        # Called by the log's thread; all series belong to the event loop.
        loop.call_soon_threadsafe(lambda: metrics.dropped(reason).inc(n))

    is_shipped = settings.log_durability == "storage"  # before a file counts as durable
    make_durable = [partial(shipper.ship, spool) if is_shipped else shipper.wake for spool in spools]
    collector = QuietCollector(loop)

    def on_stored() -> None:
        collector.notify()
        make_durable[0]()

    writer = PredictionWriter(
        spools[0],
        capacity=settings.log_capacity,
        flush_seconds=settings.log_flush_seconds,
        on_drop=count_dropped,
        on_stored=on_stored,
    )
    stack.callback(writer.close)
    return writer, OutcomeWriter(spools[1], make_durable[1]), shipper


def _listeners(
    serving: ServingContext, sock: socket.socket, limits: WireLimits, tls: dict[str, Any]
) -> tuple[list[Listener], FairQueue]:
    """Return the listener for clients and, in a worker, the one for its peers, which returns only its own data.

    Also return the queue of waiting requests, which they share.
    """
    bodies = BodyBudget(limits.unfinished_bytes)
    queue = FairQueue(serving.predictor.admission, bodies, wait_s=limits.wait_seconds, metrics=serving.metrics)
    public = Listener(sock=sock, options=_options(serving, limits, queue, **tls))
    if serving.peers is None:
        return [public], queue
    path = socket_of(serving.peers.folder, serving.peers.number)
    peer_context = replace(serving, peers=None, access=OpenAccess(), local=True)
    peers = Listener(sock=listen_on_path(path), options=_options(peer_context, limits, queue, lifespan="off"))
    return [public, peers], queue


def _options(
    serving: ServingContext,
    limits: WireLimits,
    queue: FairQueue,
    **uvicorn_options: Any,  # noqa: ANN401 - of uvicorn
) -> uvicorn.Config:
    routes = hot_routes(serving)
    return uvicorn.Config(
        create_app(serving, routes),
        log_config=None,
        log_level="error",  # the client, not the log, learns about an invalid request
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing depends on a client's address, so no header may change it
        ws="none",
        timeout_graceful_shutdown=_LAST_SECONDS,
        http=make_protocol(routes, limits, queue.bodies, queue),
        **uvicorn_options,
    )


def _skew_us(redis_url: str) -> int:
    with closing(open_online_store(redis_url)) as probe:
        return abs(probe.clock_offset_us())


async def _watch_clock(predictor: Predictor, redis_url: str) -> None:
    """Measure the clock's offset again and again: NTP may set the clock, and a machine may be suspended."""
    while True:
        await asyncio.sleep(_CLOCK_SECONDS)
        with suppress(StoreError):  # the online store is down, which the circuit breaker reports
            predictor.skew_us = await asyncio.to_thread(_skew_us, redis_url)


def _make_heartbeat(
    config: ServerConfig, models: ModelTable, writer: PredictionWriter, shipper: Shipper, stack: AsyncExitStack
) -> Callable[[], None]:
    """Return a function that records that the process runs, its plan, its models, and whether its log works."""
    presence, plan = ProcessRecord(config.state, "server"), AppliedPlanReader(config.state)
    stack.push_async_callback(asyncio.to_thread, presence.close)

    def heartbeat() -> None:
        served = {model.name: model.version for model in models.all()}
        detail = {"models": served, "refused": models.problems, "log": writer.problem, "unshipped": shipper.problem}
        presence.send_heartbeat(plan.hash(), detail)

    return heartbeat


def _reasons(
    shutdown: Shutdown, skew_us: int, settings: Settings, models: ModelTable, writer: PredictionWriter
) -> dict[str, str]:
    # Load balancers should choose another server from now on.
    if shutdown.is_requested:
        return {"server": "is shutting down"}
    reasons = {f"model {name}": why for name, why in models.unserved_reasons(settings.required_models).items()}
    dependent_models = sorted(model.name for model in models.all() if model.package.spec.log == "required")
    if writer.problem is not None and dependent_models:
        reasons["prediction log"] = (
            f"cannot be written ({writer.problem}), but is required by {', '.join(dependent_models)}"
        )
    limit_ms = settings.skew_limit_ms
    if skew_us > limit_ms * 1_000:
        reasons["clock"] = (
            f"differs by {skew_us / 1e3:.0f} ms between store and server, over the limit of {limit_ms:.0f} ms: run NTP"
        )
    return reasons


def _details(database_down_s: float | None, shipper: Shipper) -> dict[str, str]:
    details = {}
    if database_down_s is not None:
        details["database"] = (
            f"is down for {database_down_s:.0f} s: versions, policies and keys are those of the last read"
        )
    if shipper.problem is not None:
        details["logs"] = (
            f"have {shipper.files_waiting} files on this server's disk that cannot be shipped: {shipper.problem}"
        )
    return details


def run_server(config: ServerConfig, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, complete the requests in progress and write the log.

    A second signal ends the process at once.

    Args:
        on_ready: called with the server's URL once it serves predictions.

    Raises:
        PlaceError: the port is in use.
        PackageError, StalePlanError, StoreError: no champion can be served.
    """
    report_crashes()
    gc.freeze()  # see start_collector
    uvloop.run(_serve(config, on_ready))


async def _serve(config: ServerConfig, on_ready: Callable[[str], None]) -> None:
    shutdown = Shutdown()
    with bind(config.settings.host, config.settings.port) as sock, on_signals(shutdown):
        config = config.with_ports(port=sock.getsockname()[1])
        with reserve_grpc_port(config) as config, announce_server(config, on_ready) as ready:
            await serve(config, sock, shutdown, ready, metrics=make_metrics(config))
