"""Configuration of a prediction server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skewless.contract.clock import Clock
from skewless.contract.settings import Settings
from skewless.infra.packages.store import PackageStore
from skewless.infra.storage.project_state import ProjectState


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
