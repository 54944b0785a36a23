"""The program of one worker: orders on stdin, ``{"ready": true}`` or an error on stdout, logs on stderr."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys

import uvloop

from skewless.contract.errors import SkewlessError
from skewless.infra.host.telemetry import configure_logging
from skewless.serving.http.listening import bind_shared
from skewless.serving.peer_workers import PeerWorkers
from skewless.serving.process import metrics_of, serve
from skewless.serving.shutdown import Shutdown, on_signals, report_crashes
from skewless.serving.workers.worker_process import LENGTH, NOW, STOP, WorkerConfig


def main() -> int:
    """Serve until told otherwise; return the exit code."""
    said, sys.stdout = os.dup(1), sys.stderr  # what libraries print is none of the supervisor's business
    configure_logging()
    report_crashes()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_work(said))
    except SkewlessError as error:
        _say(said, {"error": error.as_dict()})
        return error.exit_code
    return 0


async def _work(said: int) -> None:
    words = await _stdin()
    (length,) = LENGTH.unpack(await words.readexactly(LENGTH.size))
    orders: WorkerConfig = pickle.loads(await words.readexactly(length))  # noqa: S301 - who started us wrote it
    shutdown = Shutdown()
    obeying = asyncio.create_task(_obey(words, shutdown))
    config = orders.config
    link = bind_shared(config.host, config.port)
    metrics = metrics_of(config)
    metrics.restarts.inc(orders.restarts)
    peers = PeerWorkers(
        folder=orders.folder, number=orders.number, count=config.workers, on_silent=metrics.unanswered.inc
    )

    def ready() -> None:
        _say(said, {"ready": True})

    with on_signals(shutdown):
        await serve(config, link, shutdown, ready, metrics=metrics, peers=peers)
    obeying.cancel()


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _obey(words: asyncio.StreamReader, shutdown: Shutdown) -> None:
    while word := await words.readline():
        if word == STOP:
            shutdown.begin()
        elif word == NOW:
            shutdown.end()
    shutdown.begin()  # the supervisor is gone


def _say(said: int, body: dict[str, object]) -> None:
    os.write(said, json.dumps(body).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
