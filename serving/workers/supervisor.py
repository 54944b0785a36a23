"""Several worker processes on one port, kept running by the process that started them.

::

    supervisor  binds the port, does not listen; restarts workers that died
    ├─ worker 0 ─┐
    ├─ worker 1 ─┼─ each listens on the port (the kernel distributes connections) and, for its peers, on
    └─ worker 2 ─┘  FOLDER/NUMBER.sock; exits when the supervisor says so or has died

Workers are not forked: each one is a new interpreter, so no thread or connection is copied.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import uvloop

from skewless.contract.errors import PlaceError, SkewlessError
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.serving.http.sockets import allow_sharing, bind, reserve_grpc_port
from skewless.serving.server_config import VARIABLE, ServerConfig, announce_server
from skewless.serving.shutdown import Shutdown, cause_of, on_signals, report_crashes

LENGTH = struct.Struct("!I")  # length of the pickled configuration, which follows
STOP, NOW = b"stop\n", b"now\n"
_COMMAND = (sys.executable, "-P", "-m", "skewless.serving.workers")
_KILL_SECONDS = 5.0
_MIN_WAIT_S, _MAX_WAIT_S = 0.1, 30.0  # before a restart
_STEADY_S = 10.0  # a process that lived so long is restarted soon
_log = EventLogger()


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """Configuration of a worker.

    Args:
        config: configuration of the server, with the shared port, which is not 0.
        folder: folder of the workers' control sockets.
        number: number of this worker, from 0.
        restarts: how often this worker has been restarted.
    """

    config: ServerConfig
    folder: Path
    number: int = 0
    restarts: int = 0


@dataclass(frozen=True, eq=False)
class WorkerProcess:
    """A started worker; it exits on the command to stop, and when its supervisor dies."""

    worker_config: WorkerConfig
    process: asyncio.subprocess.Process

    @classmethod
    async def start(cls, worker_config: WorkerConfig) -> WorkerProcess:
        """Start the process, without waiting until it is ready."""
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Only the supervisor may report to systemd, once all workers are ready.
            env={name: value for name, value in os.environ.items() if name != VARIABLE},
            start_new_session=True,  # Ctrl-C reaches only the supervisor, which forwards it
        )
        worker = cls(worker_config, process)
        body = pickle.dumps(worker_config)
        worker.send(LENGTH.pack(len(body)) + body)
        return worker

    async def wait_ready(self) -> None:
        """Wait until the worker serves predictions.

        Raises:
            SkewlessError: the worker could not start; the error is the worker's.
        """
        line = await cast("asyncio.StreamReader", self.process.stdout).readline()
        body = json.loads(line) if line else {}
        if "error" in body:
            await self.process.wait()
            raise SkewlessError.from_dict(body["error"])
        if not body:
            code = await self.process.wait()
            raise PlaceError(
                f"worker {self.worker_config.number}", "exited before it was ready", value=code, fix="check its log"
            )

    def send(self, command: bytes) -> None:
        """Send a command to the worker's stdin; an exited worker is ignored."""
        if self.process.stdin is not None and not self.process.stdin.is_closing():
            with contextlib.suppress(ConnectionError):
                self.process.stdin.write(command)

    def kill(self) -> None:
        """Kill the process."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


def run_workers(config: ServerConfig, on_ready: Callable[[str], None]) -> None:
    """Serve with several workers until SIGTERM or SIGINT; a second signal kills the remaining workers.

    Args:
        on_ready: called with the server's URL once all workers serve predictions.

    Raises:
        PlaceError: the port is in use.
        PackageError, StalePlanError, StoreError: no champion can be served.
    """
    report_crashes()
    uvloop.run(_supervise(config, on_ready))


async def _supervise(config: ServerConfig, on_ready: Callable[[str], None]) -> None:
    shutdown = Shutdown()
    settings = config.settings
    with bind(settings.host, settings.port) as sock, on_signals(shutdown), _control_folder() as folder:
        # With port 0 the system chose one, which all workers must share.
        config = config.with_ports(port=sock.getsockname()[1])
        allow_sharing(sock)
        with reserve_grpc_port(config) as config, announce_server(config, on_ready) as ready:
            await Workers(WorkerConfig(config=config, folder=folder), shutdown).run(ready)


def next_wait_s(last_s: float, lived_s: float) -> float:
    """Return the seconds to wait before a process is restarted, after one that ran for ``lived_s`` seconds.

    Args:
        last_s: the wait before; 0: none.

    >>> [next_wait_s(0.0, 0.0), next_wait_s(0.1, 0.0), next_wait_s(0.2, 60.0), next_wait_s(20.0, 0.0)]
    [0.1, 0.2, 0.1, 30.0]
    """
    return min(2 * last_s, _MAX_WAIT_S) if last_s and lived_s < _STEADY_S else _MIN_WAIT_S


class Workers:
    """The worker processes of one server.

    Args:
        worker_config: for worker 0; the others receive it with their own number.
        shutdown: when the workers must stop.
    """

    def __init__(self, worker_config: WorkerConfig, shutdown: Shutdown) -> None:
        self._worker_config = worker_config
        self._shutdown = shutdown
        self._processes: dict[int, WorkerProcess] = {}

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until the shutdown; return when all workers have exited.

        Raises:
            SkewlessError: a worker could not start; all others have been stopped.
        """
        worker_numbers = range(self._worker_config.config.settings.workers)
        forwarder = asyncio.create_task(self._forward_shutdown())
        try:
            await asyncio.gather(*(self._start(number) for number in worker_numbers))
            if not self._shutdown.is_requested:
                on_ready()
            await asyncio.gather(*(self._restart_when_exited(number) for number in worker_numbers))
        except SkewlessError:
            was_requested = self._shutdown.is_requested
            self._shutdown.force()
            if not was_requested:  # a worker that is stopped while it starts did not fail
                raise
        finally:
            await asyncio.gather(*(worker.process.wait() for worker in self._processes.values()))
            forwarder.cancel()

    async def _start(self, number: int, restarts: int = 0) -> None:
        worker_config = replace(self._worker_config, number=number, restarts=restarts)
        worker = self._processes[number] = await WorkerProcess.start(worker_config)
        # The command may have been sent to all workers before this one existed.
        if self._shutdown.is_requested:
            worker.send(STOP)
        await worker.wait_ready()

    async def _restart_when_exited(self, number: int) -> None:
        """Restart a worker whenever it exits, until the shutdown."""
        wait, restarts, started_at = 0.0, 0, time.monotonic()
        while True:
            code = await self._processes[number].process.wait()
            if self._shutdown.is_requested:
                return
            restarts += 1
            wait = next_wait_s(wait, time.monotonic() - started_at)
            pid = self._processes[number].process.pid
            _log.error("worker_ended", worker=number, pid=pid, code=code, cause=cause_of(code), again_in_s=wait)
            if await self._shutdown.wait(wait):
                return
            started_at = time.monotonic()
            try:
                await self._start(number, restarts)
            except SkewlessError as error:
                _log.error("worker_refused", worker=number, error=str(error))

    async def _forward_shutdown(self) -> None:
        await self._shutdown.begun.wait()
        self._send_all(STOP)
        await self._shutdown.forced.wait()
        self._send_all(NOW)
        await asyncio.sleep(_KILL_SECONDS)
        for worker in self._processes.values():
            worker.kill()

    def _send_all(self, command: bytes) -> None:
        for worker in self._processes.values():
            worker.send(command)


@contextlib.contextmanager
def _control_folder() -> Iterator[Path]:
    """Yield a temporary folder that only its owner may enter; in a short path, because socket paths are limited."""
    folder = Path(tempfile.mkdtemp(prefix="skewless-workers-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
