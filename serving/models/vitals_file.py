"""What one server process counts under traffic policies, written where their controller reads it."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from pathlib import Path

import structlog

from skewless.contract.clock import Clock
from skewless.infra.rollout.vitals import sweep_vitals, vitals_folder, write_vitals
from skewless.serving.models.routes import Routes

_SECONDS = 2.0
_log = structlog.get_logger()


class VitalsFile:
    """Writes one file of this process every 2 seconds, and at its end: its counts are true as long as the policy lasts.

    Files of policies that are over are swept at the start, one's own as soon as no policy is in force.
    """

    def __init__(self, state: Path, routes: Routes, clock: Clock) -> None:
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.json"
        self._path = vitals_folder(state) / name
        self._state = state
        self._routes = routes
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write; call it from the event loop."""
        sweep_vitals(self._state, self._routes.numbers())
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write for the last time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.write()

    async def write(self) -> None:
        """Write now; a disk that refuses is told to the log, and tried again next time."""
        models = self._routes.vitals(self._clock.now_us())
        try:
            if models:
                await asyncio.to_thread(write_vitals, self._path, models)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            _log.error("vitals_not_written", error=str(error))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_SECONDS)
            await self.write()
