"""Configuration of a prediction server, and its announcement: to its caller, to systemd, and in ``server.json``."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from skewless.contract.clock import Clock
from skewless.contract.settings import Settings
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.storage.durable import replace_durable
from skewless.infra.platform.storage.project_state import ProjectState

VARIABLE = "NOTIFY_SOCKET"  # set by systemd for `Type=notify`


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Configuration of a server; workers receive it pickled."""

    repo: Path
    state: ProjectState
    redis_url: str
    clock: Clock
    settings: Settings

    def with_ports(self, **ports: int) -> ServerConfig:
        """Return the configuration with ports that the system chose for port 0: ``port`` or ``grpc_port``."""
        return replace(self, settings=self.settings.model_copy(update=ports))

    @property
    def store(self) -> PackageStore:
        """The model packages."""
        return PackageStore.of(self.state, self.settings)

    @property
    def url(self) -> str:
        """URL of the server, once its port is known."""
        settings = self.settings
        scheme = "http" if settings.tls_cert is None else "https"
        return f"{scheme}://{self._host}:{settings.port}"

    @property
    def grpc_address(self) -> str:
        """Address of the gRPC port, once it is known."""
        return f"{self._host}:{self.settings.grpc_port}"

    @property
    def _host(self) -> str:
        host = self.settings.host
        return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def announce_server(config: ServerConfig, on_ready: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Yield a function to call once the server serves predictions; at the end its ``server.json`` is deleted.

    Args:
        config: with the real port, not 0.
        on_ready: called with the URL.
    """
    path = config.state / "server.json"
    with contextlib.ExitStack() as stack:

        def ready() -> None:
            body: dict[str, object] = {"url": config.url, "pid": os.getpid(), "workers": config.settings.workers}
            if config.settings.grpc_port is not None:
                body["grpc"] = config.grpc_address
            # Atomically: another process may wait for the file and read it as soon as it exists.
            replace_durable(path, json.dumps(body).encode())
            stack.callback(_delete_own, path)
            on_ready(config.url)
            notify("READY=1")

        yield ready


def _delete_own(path: Path) -> None:
    """Delete the announcement of this process; in a rolling update another server may have replaced it."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if json.loads(path.read_bytes())["pid"] == os.getpid():
            path.unlink()


def notify(state: str) -> None:
    """Send ``READY=1`` or ``STOPPING=1`` to the service manager that started this process; without one, do nothing."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(state.encode(), address)
