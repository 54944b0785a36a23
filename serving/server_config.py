"""What a server needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skewless.contract.clock import Clock
from skewless.contract.settings import Settings
from skewless.infra.packages.store import PackageStore


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """What is not in the settings, or was chosen against them, stands by itself. Workers get it pickled."""

    repo: Path
    state: Path
    redis_url: str
    clock: Clock
    host: str
    port: int
    workers: int = 1
    settings: Settings

    @classmethod
    def of(cls, settings: Settings, repo: Path, state: Path, redis_url: str, clock: Clock) -> ServerConfig:
        """Return what the settings say."""
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
        """The packages, and whose are loaded."""
        return PackageStore.of(self.state, self.settings)

    @property
    def url(self) -> str:
        """Where the server is, once its port is known."""
        scheme = "http" if self.settings.tls_cert is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"
