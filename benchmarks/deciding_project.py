"""The project of the decision benchmarks: one source, a windowed view of each of its keys, a model, and workers."""

# ruff: noqa: PLC0415 - contestants load libraries, and the program that starts them does not

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.ingests import KEYS

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

    from skewless.infra.ingest.streams.streams import Streams
    from skewless.infra.models.packages.served_model import ServedModel

MODEL, STREAM, OUT, SERVICE = "fraud", "payments", "decisions", "all"
WINDOWS = 3
_TREES, _ROWS = 200, 2_000
_LENGTHS_H = (1, 24, 168, 2, 3, 4, 6, 8, 10, 12, 18, 36, 48, 72, 96, 144)


@contextmanager
def open_streams(state: Path, url: str, windows: int = WINDOWS) -> Iterator[Streams]:
    """Yield the streams of a project with four views, each with some windows of four functions.

    Args:
        state: folder of the project.
        url: of Redis.
        windows: number of windows of each view, at most 16.
    """
    from benchmarks.window_events import ALL, plan_of, view
    from skewless.contract.clock import SystemClock
    from skewless.contract.settings import Settings
    from skewless.contract.windows.hops import HOUR
    from skewless.infra.ingest.streams.streams import Streams
    from skewless.infra.platform.storage.project_state import ProjectState
    from skewless.infra.reads.offline.engine import connect

    lengths = [HOUR * hours for hours in _LENGTHS_H[:windows]]
    views = [view(ALL, key=name, name=f"{name}_live", windows=lengths) for name in KEYS]
    with connect(state / f"spill-{os.getpid()}", threads=1) as connection:
        yield Streams(
            plan=plan_of(views, list(KEYS)),
            state=ProjectState(state),
            settings=Settings(stream_partitions=1),  # one worker takes them all
            url=lambda: url,
            connection=connection,
            clock=SystemClock(),
        )


def decision_stream(*, has_sink: bool) -> Any:  # noqa: ANN401 - loaded by contestants
    """Return the decision stream, which delivers to a Redis stream or nowhere."""
    from skewless.contract.decisions import DecisionStream
    from skewless.contract.sinks import RedisStreamSink

    sink = RedisStreamSink(name=OUT, stream=OUT, most_entries=200_000)
    return DecisionStream(name=STREAM, source="events", model=MODEL, sinks=(sink,) if has_sink else ())


def build_states(streams: Streams, url: str) -> None:
    """Build the empty states of all views."""
    from skewless.infra.ingest.streams.backfill import Backfiller
    from skewless.infra.reads.online.redis_store import RedisWriter

    store = RedisWriter(url)
    Backfiller(streams=streams, store=store).build_missing(streams.plan.windows)
    store.close()


def publish_model(streams: Streams) -> None:
    """Write a model on all features, and make it the champion."""
    from datetime import timedelta

    import lightgbm

    from skewless.contract.labels import LabelSource
    from skewless.contract.spec import ModelSpec, Split
    from skewless.infra.definitions.plans.needed_views import CHAMPION
    from skewless.infra.models.packages.package import PackageContents, pin_plan
    from skewless.infra.models.packages.writer import write_package
    from skewless.infra.models.runtimes.certification import Reference

    plan, rng = streams.plan.select_service(SERVICE), np.random.default_rng(3)
    rows = rng.gamma(2.0, 40.0, (_ROWS, len(plan.services[0].features)))
    labels = (rows[:, 0] + rng.normal(0, 20, _ROWS) > 80).astype(float)
    params = {"objective": "binary", "num_leaves": 15, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(params, lightgbm.Dataset(rows, labels), num_boost_round=_TREES)
    some = rows[:64]
    labels_of = LabelSource(path="labels", event_time="at", known_time="known", label="y")
    contents = PackageContents(
        model_name="model.txt",
        model=booster.model_to_string().encode(),
        spec=ModelSpec(
            name=MODEL, service=SERVICE, labels=labels_of, algorithm="lightgbm", split=Split(test=timedelta(days=1))
        ),
        plan=pin_plan(plan, {}),
        reference=Reference(some, *(np.asarray(booster.predict(some, raw_score=raw)) for raw in (True, False))),
        profile={},
        metrics={},
        fingerprint={},
    )
    store = package_store(streams)
    version = write_package(store, MODEL, contents).version
    store.aliases.move(MODEL, CHAMPION, expect=None, to=version, reason="", now_us=0)


def package_store(streams: Streams) -> Any:  # noqa: ANN401 - loaded by contestants
    """Return the packages of the project."""
    from skewless.infra.models.packages.store import PackageStore

    return PackageStore.of(streams.state, streams.settings)


def load_champion(streams: Streams) -> ServedModel:
    """Return the model as a server loads it."""
    from skewless.infra.models.packages.served_model import load_model

    return load_model(package_store(streams), MODEL, "000001")


@contextmanager
def decide_elsewhere(state: Path, url: str) -> Iterator[int]:
    """Let a worker decide and deliver in another process during the block; yield the number of the process."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=_work, args=(str(state), url, stop))
    process.start()
    try:
        yield process.pid or 0
    finally:
        stop.set()
        process.join(20)


def _work(state: str, url: str, stop: Event) -> None:
    from skewless.infra.ingest.streams.worker import Worker
    from skewless.infra.reads.online.redis_store import RedisWriter
    from skewless_decisions.opening import Deciders

    with open_streams(Path(state), url) as streams:
        store, source = RedisWriter(url), streams.sources()[0]
        deciders = Deciders(streams=streams, store=package_store(streams))
        decisions: Sequence[Any] = [decision_stream(has_sink=True)]
        deciders.load(streams.plan, decisions, store)
        worker = Worker(
            streams=streams,
            source=source,
            writer=streams.writer(source, store),
            open_stream=streams.open_stream(source),
        )
        worker.set_decider(deciders.open(streams.plan, source, decisions, store))
        worker.run(lambda: not stop.is_set())
        deciders.close()
        store.close()
