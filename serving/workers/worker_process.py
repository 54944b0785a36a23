"""A worker process from the supervisor's view: commands go to its stdin, its stdout reports that it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skewless.contract.errors import PlaceError, SkewlessError
from skewless.serving.announcement import VARIABLE
from skewless.serving.server_config import ServerConfig

LENGTH = struct.Struct("!I")  # length of the pickled configuration, which follows
STOP, NOW = b"stop\n", b"now\n"
_COMMAND = (sys.executable, "-P", "-m", "skewless.serving.workers.worker")


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


class WorkerProcess:
    """A started worker; it exits on the command to stop, and when its supervisor dies."""

    def __init__(self, worker_config: WorkerConfig, process: asyncio.subprocess.Process) -> None:
        self._worker_config = worker_config
        self._process = process

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

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def wait_ready(self) -> None:
        """Wait until the worker serves predictions.

        Raises:
            SkewlessError: the worker could not start; the error is the worker's.
        """
        output_fd = await _output(self._process).readline()
        body = json.loads(output_fd) if output_fd else {}
        if "error" in body:
            await self._process.wait()
            raise _error(body["error"])
        if not body:
            code = await self._process.wait()
            raise PlaceError(
                f"worker {self._worker_config.number}", "exited before it was ready", value=code, fix="check its log"
            )

    def send(self, command: bytes) -> None:
        """Send a command to the worker's stdin; an exited worker is ignored."""
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(command)

    async def wait_exit(self) -> int:
        """Wait for the exit; return the exit code, negative: the signal that ended the process."""
        return await self._process.wait()

    def kill(self) -> None:
        """Kill the process."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


def _output(process: asyncio.subprocess.Process) -> asyncio.StreamReader:
    if process.stdout is None:
        raise PlaceError("worker", "was started without a pipe", fix="report this defect")
    return process.stdout


def _error(parts: Mapping[str, Any]) -> SkewlessError:
    classes: list[type[SkewlessError]] = [SkewlessError, *SkewlessError.__subclasses__()]
    kinds = {kind.kind: kind for kind in classes}
    return kinds.get(parts["kind"], SkewlessError)(
        parts["thing"], parts["problem"], fix=parts["fix"], value=parts.get("value")
    )
