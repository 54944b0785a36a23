"""Program of one worker: configuration on stdin, ``{"ready": true}`` or an error on stdout, logs on stderr."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pickle
import sys

import uvloop

from skewless.contract.errors import SkewlessError
from skewless.infra.platform.telemetry.logger import configure_logging
from skewless.serving.http.sockets import bind
from skewless.serving.metrics.process_metrics import make_metrics
from skewless.serving.peer_workers import PeerWorkers
from skewless.serving.process import serve
from skewless.serving.shutdown import Shutdown, on_signals, report_crashes
from skewless.serving.workers.supervisor import LENGTH, NOW, STOP, WorkerConfig


def main() -> int:
    """Serve until the supervisor stops the worker; return the exit code."""
    output_fd, sys.stdout = os.dup(1), sys.stderr  # the supervisor parses stdout: prints of libraries go to stderr
    configure_logging()
    report_crashes()
    gc.freeze()  # the modules, as in a server without workers; the collector is off until `serve` has opened everything
    try:
        uvloop.run(_work(output_fd))
    except SkewlessError as error:
        _write_message(output_fd, {"error": error.as_dict()})
        return error.exit_code
    return 0


async def _work(output_fd: int) -> None:
    commands = await _stdin()
    (length,) = LENGTH.unpack(await commands.readexactly(LENGTH.size))
    worker_config: WorkerConfig = pickle.loads(await commands.readexactly(length))  # noqa: S301 - our supervisor wrote it
    shutdown = Shutdown()
    command_reader = asyncio.create_task(_follow_commands(commands, shutdown))
    config = worker_config.config
    settings = config.settings
    sock = bind(settings.host, settings.port, shared=True)
    metrics = make_metrics(config)
    metrics.restarts.inc(worker_config.restarts)
    peers = PeerWorkers(
        folder=worker_config.folder,
        number=worker_config.number,
        count=settings.workers,
        on_no_reply=metrics.unanswered.inc,
    )

    def ready() -> None:
        _write_message(output_fd, {"ready": True})

    with on_signals(shutdown):
        await serve(config, sock, shutdown, ready, metrics=metrics, peers=peers)
    command_reader.cancel()


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _follow_commands(commands: asyncio.StreamReader, shutdown: Shutdown) -> None:
    while command := await commands.readline():
        if command == STOP:
            shutdown.begun.set()
        elif command == NOW:
            shutdown.force()
    shutdown.begun.set()  # the supervisor died


def _write_message(output_fd: int, body: dict[str, object]) -> None:
    os.write(output_fd, json.dumps(body).encode() + b"\n")
