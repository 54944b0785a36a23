"""One worker as its supervisor sees it: a process that takes words on stdin and says on stdout that it is ready."""

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

LENGTH = struct.Struct("!I")  # stands before the orders
STOP, NOW = b"stop\n", b"now\n"
_COMMAND = (sys.executable, "-P", "-m", "skewless.serving.workers.worker")


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What a worker is told when it begins.

    Args:
        config: the number of workers, and the port that all share, which is not 0.
        folder: where the workers' control sockets are.
        number: of this worker, from 0.
        restarts: how often this worker has been started again.
    """

    config: ServerConfig
    folder: Path
    number: int = 0
    restarts: int = 0


class WorkerProcess:
    """A worker that was started; it ends when it is told to, and when its supervisor is gone."""

    def __init__(self, orders: WorkerConfig, process: asyncio.subprocess.Process) -> None:
        self._orders = orders
        self._process = process

    @classmethod
    async def start(cls, orders: WorkerConfig) -> WorkerProcess:
        """Start the process; it is not ready yet."""
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != VARIABLE},
            start_new_session=True,  # Ctrl-C is the supervisor's, who passes it on
        )
        worker = cls(orders, process)
        body = pickle.dumps(orders)
        worker.tell(LENGTH.pack(len(body)) + body)
        return worker

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def ready(self) -> None:
        """Wait until it answers predictions.

        Raises:
            SkewlessError: it cannot; the error is the one that the worker met.
        """
        said = await _output(self._process).readline()
        body = json.loads(said) if said else {}
        if "error" in body:
            await self._process.wait()
            raise _error(body["error"])
        if not body:
            code = await self._process.wait()
            raise PlaceError(
                f"worker {self._orders.number}", "ended before it was ready", value=code, fix="see what it logged"
            )

    def tell(self, words: bytes) -> None:
        """Send something to the worker's stdin; one that has ended does not mind."""
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(words)

    async def ended(self) -> int:
        """Wait for the end; return the exit code, negative: the signal that ended it."""
        return await self._process.wait()

    def kill(self) -> None:
        """End it, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


def _output(process: asyncio.subprocess.Process) -> asyncio.StreamReader:
    if process.stdout is None:
        raise PlaceError("worker", "was started without a pipe", fix="report this")
    return process.stdout


def _error(parts: Mapping[str, Any]) -> SkewlessError:
    known: list[type[SkewlessError]] = [SkewlessError, *SkewlessError.__subclasses__()]
    kinds = {kind.kind: kind for kind in known}
    return kinds.get(parts["kind"], SkewlessError)(
        parts["thing"], parts["problem"], fix=parts["fix"], value=parts.get("value")
    )
