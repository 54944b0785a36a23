"""Several worker processes on one port, kept alive by the process that started them.

::

    supervisor  binds the port, does not listen; restarts who dies
    ├─ worker 0 ─┐
    ├─ worker 1 ─┼─ each listens on the port (the kernel spreads connections) and on FOLDER/NUMBER.sock,
    └─ worker 2 ─┘  where the others ask it; ends when the supervisor says so, or is gone

Nothing is forked: each worker is a new interpreter, so no thread or connection is ever copied.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog
import uvloop

from skewless.contract.errors import SkewlessError
from skewless.serving.announcement import announcing
from skewless.serving.http.listening import allow_sharing, bind
from skewless.serving.server_config import ServerConfig
from skewless.serving.shutdown import Shutdown, cause_of, on_signals, report_crashes
from skewless.serving.workers.worker_process import NOW, STOP, WorkerConfig, WorkerProcess

_KILL_SECONDS = 5.0
_log = structlog.get_logger()


def run_workers(config: ServerConfig, on_ready: Callable[[str], None]) -> None:
    """Serve with several workers until SIGTERM or SIGINT; a second signal ends what is left at once.

    Args:
        on_ready: told the server's URL once all workers answer predictions.

    Raises:
        PlaceError: the port is in use.
        PackageError, StalePlanError, StoreError: no champion can be served.
    """
    report_crashes()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_supervise(config, on_ready))


async def _supervise(config: ServerConfig, on_ready: Callable[[str], None]) -> None:
    shutdown = Shutdown()
    with bind(config.host, config.port) as link, on_signals(shutdown), _control_folder() as folder:
        config = replace(config, port=link.getsockname()[1])
        allow_sharing(link)
        with announcing(config, on_ready) as ready:
            await Workers(WorkerConfig(config=config, folder=folder), shutdown).run(ready)


@dataclass(kw_only=True)
class Backoff:
    """How long to wait before something that ended is started again.

    >>> backoff = Backoff()
    >>> [backoff.after(0.0), backoff.after(0.0), backoff.after(60.0), backoff.after(0.0)]
    [0.1, 0.2, 0.1, 0.2]
    """

    shortest: float = 0.1
    longest: float = 30.0
    steady: float = 10.0
    _next: float = field(default=0.0, init=False)

    def after(self, lived: float) -> float:
        """Return the seconds to wait after something has lived for some seconds."""
        self._next = self.shortest if lived >= self.steady or not self._next else min(2 * self._next, self.longest)
        return self._next


class Workers:
    """The workers of one server.

    Args:
        orders: for worker 0; the others get the same under their own numbers.
        shutdown: when they are to end.
    """

    def __init__(self, orders: WorkerConfig, shutdown: Shutdown) -> None:
        self._orders = orders
        self._shutdown = shutdown
        self._processes: dict[int, WorkerProcess] = {}

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until the shutdown; return when all workers have ended.

        Raises:
            SkewlessError: a worker could not begin; then there is none left.
        """
        numbers = range(self._orders.config.workers)
        stopping = asyncio.create_task(self._stop())
        try:
            await asyncio.gather(*(self._start(number) for number in numbers))
            if not self._shutdown.asked:
                on_ready()
            await asyncio.gather(*(self._keep(number) for number in numbers))
        except SkewlessError:
            told = self._shutdown.asked
            self._shutdown.end()
            if not told:  # a worker that is told to end while it begins is no failure
                raise
        finally:
            await asyncio.gather(*(worker.ended() for worker in self._processes.values()))
            stopping.cancel()

    async def _start(self, number: int, restarts: int = 0) -> None:
        orders = replace(self._orders, number=number, restarts=restarts)
        worker = self._processes[number] = await WorkerProcess.start(orders)
        if self._shutdown.asked:
            worker.tell(STOP)
        await worker.ready()

    async def _keep(self, number: int) -> None:
        """Start a worker again whenever it has ended, until the shutdown."""
        backoff, restarts, begun = Backoff(), 0, time.monotonic()
        while True:
            code = await self._processes[number].ended()
            if self._shutdown.asked:
                return
            restarts += 1
            wait = backoff.after(time.monotonic() - begun)
            pid = self._processes[number].pid
            _log.error("worker_ended", worker=number, pid=pid, code=code, cause=cause_of(code), again_in_s=wait)
            if await self._shutdown.within(wait):
                return
            begun = time.monotonic()
            try:
                await self._start(number, restarts)
            except SkewlessError as error:
                _log.error("worker_refused", worker=number, error=str(error))

    async def _stop(self) -> None:
        await self._shutdown.begun()
        self._tell(STOP)
        await self._shutdown.at_once()
        self._tell(NOW)
        await asyncio.sleep(_KILL_SECONDS)
        for worker in self._processes.values():
            worker.kill()

    def _tell(self, words: bytes) -> None:
        for worker in self._processes.values():
            worker.tell(words)


@contextlib.contextmanager
def _control_folder() -> Iterator[Path]:
    """Yield a folder that only its owner may enter, gone in the end; the paths of sockets must be short."""
    folder = Path(tempfile.mkdtemp(prefix="skewless-workers-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
