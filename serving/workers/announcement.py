"""How a server says that it is there: to who started it, to systemd, and in ``server.json`` to everybody else."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from skewless.infra.storage.durable import refused
from skewless.serving.server_config import ServerConfig
from skewless.serving.workers.service_manager import notify


@contextlib.contextmanager
def announcing(config: ServerConfig, on_ready: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Yield what is to be called once predictions are answered; afterwards the server is not found any more.

    Args:
        config: with the port that the server has, not 0.
        on_ready: told the URL.
    """
    place = config.state / "server.json"
    with contextlib.ExitStack() as stack:

        def ready() -> None:
            stack.callback(place.unlink, missing_ok=True)
            _note(place, {"url": config.url, "pid": os.getpid(), "workers": config.workers})
            on_ready(config.url)
            notify("READY=1")

        yield ready


def _note(place: Path, body: dict[str, object]) -> None:
    try:
        place.write_text(json.dumps(body))
    except OSError as error:
        raise refused(place, error) from error
