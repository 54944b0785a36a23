"""A prediction server of the project of a deciding world, killed and started again while a thread asks it."""

from __future__ import annotations

import json
import random
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from plugins.decisions.tests.deciding import MODEL
from skewless.contract.clock import OffsetClock
from skewless.contract.settings import Settings
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.serving.process import run_server
from skewless.serving.server_config import ServerConfig
from tests.servers.prediction import ROOT, PredictionServer
from tests.worlds.streams import IDS

_SERVE = "from plugins.decisions.tests.asked_server import serve; serve()"
_REST_S = 0.1


def serve() -> None:
    """Serve the project of the folder after ``--repo`` until SIGTERM."""
    root = Path(sys.argv[sys.argv.index("--repo") + 1])
    settings = Settings(port=0, auth="off", **json.loads((root / "serving.json").read_text()))
    state, clock = ProjectState(root), OffsetClock(root / "clock")
    config = ServerConfig(repo=root, state=state, redis_url=settings.redis_url or "", clock=clock, settings=settings)
    run_server(config, lambda url: print(json.dumps({"url": url}), flush=True))  # noqa: T201 - as `skewless serve`


@dataclass
class AskedServer:
    """A server that is asked from ``start`` to ``finish``; ``ids``: of the predictions that it answered with."""

    root: Path
    redis_url: str
    ids: list[str] = field(default_factory=list)
    failures: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _asks: threading.Thread | None = None
    _server: PredictionServer | None = None

    def start(self) -> None:
        """Start the server, and ask it from now on."""
        (self.root / "serving.json").write_text(json.dumps({"redis_url": self.redis_url}))
        self._server = PredictionServer.start_release(ROOT, self.root, {}, (sys.executable, "-c", _SERVE))
        if self._asks is None:
            self._asks = threading.Thread(target=self._ask_on)
            self._asks.start()

    def kill(self) -> None:
        """Kill the server; the thread goes on asking."""
        assert self._server is not None
        self._server.process.kill()
        self._server.process.communicate()

    def finish(self) -> None:
        """Ask no more, and let the server end by itself, so that the log has its last predictions."""
        self._stop.set()
        if self._asks is not None:
            self._asks.join()
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _ask_on(self) -> None:
        chance = random.Random(0)
        while not self._stop.wait(_REST_S):
            rows = [{"id": chance.randrange(IDS), "x": chance.gauss(1, 3)} for _ in range(3)]
            body = json.dumps({"model": MODEL, "rows": rows})
            server, ids = self._server, list[str]()
            with suppress(OSError, HTTPException):
                status, reply = server.post("/predict", body) if server else (0, {})
                ids = [each["id"] for each in reply["predictions"]] if status == HTTPStatus.OK else []
            self.ids += ids
            self.failures += not ids
