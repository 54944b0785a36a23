"""Configuration of a prediction server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from skewless.contract.clock import Clock
from skewless.contract.settings import Settings
from skewless.infra.packages.store import PackageStore
from skewless.infra.storage.project_state import ProjectState


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Configuration of a server; workers receive it pickled."""

    repo: Path
    state: ProjectState
    redis_url: str
    clock: Clock
    settings: Settings

    def with_port(self, port: int) -> ServerConfig:
        """Return the configuration with the port that the system chose for port 0."""
        return replace(self, settings=self.settings.model_copy(update={"port": port}))

    @property
    def store(self) -> PackageStore:
        """The model packages."""
        return PackageStore.of(self.state, self.settings)

    @property
    def url(self) -> str:
        """URL of the server, once its port is known."""
        settings = self.settings
        scheme = "http" if settings.tls_cert is None else "https"
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return f"{scheme}://{host}:{settings.port}"
