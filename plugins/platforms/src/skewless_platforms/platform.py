"""The four platforms, as the port of the core wants them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skewless_platforms.contracts import PlatformName, read_contract
from skewless_platforms.route import PlatformRoutes


@dataclass(frozen=True)
class NamedPlatform:
    """A platform; see ``ContainerPlatform`` of the core."""

    name: PlatformName

    def locate_project(self, given: Path | None, environment: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
        """Return the folder of the project in a container, and the settings that the platform determines."""
        from skewless_platforms.containers import locate_project  # noqa: PLC0415 - not in each worker

        return locate_project(self.name, given, environment)

    def open_routes(self, environment: Mapping[str, str]) -> PlatformRoutes:
        """Return the routes of the platform."""
        return PlatformRoutes(read_contract(self.name, environment))


AZURE, KSERVE = NamedPlatform("azure"), NamedPlatform("kserve")
SAGEMAKER, VERTEX = NamedPlatform("sagemaker"), NamedPlatform("vertex")
