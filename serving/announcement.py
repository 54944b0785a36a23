"""Announcement of a running server: to its caller, to systemd, and in ``server.json`` for other commands."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator

from skewless.infra.storage.durable import replace_durable
from skewless.serving.server_config import ServerConfig

VARIABLE = "NOTIFY_SOCKET"  # set by systemd for `Type=notify`


@contextlib.contextmanager
def announce_server(config: ServerConfig, on_ready: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Yield a function to call once the server serves predictions; at the end ``server.json`` is deleted.

    Args:
        config: with the real port, not 0.
        on_ready: called with the URL.
    """
    path = config.state / "server.json"
    with contextlib.ExitStack() as stack:

        def ready() -> None:
            body = {"url": config.url, "pid": os.getpid(), "workers": config.settings.workers}
            # Atomically: another process may wait for the file and read it as soon as it exists.
            replace_durable(path, json.dumps(body).encode())
            stack.callback(path.unlink, missing_ok=True)
            on_ready(config.url)
            notify("READY=1")

        yield ready


def notify(state: str) -> None:
    """Send ``READY=1`` or ``STOPPING=1`` to the service manager that started this process; without one, do nothing."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(state.encode(), address)
