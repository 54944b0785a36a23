"""Configuration of a prediction server, and its announcement to its caller, to systemd and to other commands."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from skewless.contract.clock import Clock
from skewless.contract.settings import Settings
from skewless.infra.packages.store import PackageStore
from skewless.infra.storage.durable import disk_error
from skewless.infra.storage.project_state import ProjectState

VARIABLE = "NOTIFY_SOCKET"  # set by systemd for `Type=notify`


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Configuration of a server: values that are not settings, or that override them. Workers receive it pickled."""

    repo: Path
    state: ProjectState
    redis_url: str
    clock: Clock
    host: str
    port: int
    workers: int = 1
    settings: Settings

    @classmethod
    def of(cls, settings: Settings, repo: Path, state: ProjectState, redis_url: str, clock: Clock) -> ServerConfig:
        """Return the configuration from the settings."""
        return cls(
            repo=repo,
            state=state,
            redis_url=redis_url,
            clock=clock,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            settings=settings,
        )

    @property
    def store(self) -> PackageStore:
        """The model packages."""
        return PackageStore.of(self.state, self.settings)

    @property
    def url(self) -> str:
        """URL of the server, once its port is known."""
        scheme = "http" if self.settings.tls_cert is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"


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
            # First, so that a file that was written only in part is deleted, too.
            stack.callback(path.unlink, missing_ok=True)
            _write_file(path, {"url": config.url, "pid": os.getpid(), "workers": config.workers})
            on_ready(config.url)
            notify("READY=1")

        yield ready


def _write_file(path: Path, body: dict[str, object]) -> None:
    try:
        path.write_text(json.dumps(body))
    except OSError as error:
        raise disk_error(path, error) from error


def notify(state: str) -> None:
    """Send ``READY=1`` or ``STOPPING=1`` to the service manager that started this process; without one, do nothing."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(state.encode(), address)
