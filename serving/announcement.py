"""How a server says that it is there: to who started it, to systemd, and in ``server.json`` to everybody else."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from skewless.infra.storage.durable import disk_error
from skewless.serving.server_config import ServerConfig

VARIABLE = "NOTIFY_SOCKET"  # set by systemd for `Type=notify`


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
        raise disk_error(place, error) from error


def notify(state: str) -> None:
    """Send ``READY=1`` or ``STOPPING=1`` to the service manager that started this process; without one, do nothing."""
    place = os.environ.get(VARIABLE)
    if not place:
        return
    address = f"\0{place[1:]}" if place.startswith("@") else place
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link, contextlib.suppress(OSError):
        link.sendto(state.encode(), address)
