"""The port of platforms: where a container of a platform finds its project, and the routes that it must answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, get_args

from skewless.contract.errors import DefinitionError
from skewless.contract.settings import Platform, read_variables
from skewless.infra.platform.host.plugins import require_plugin

if TYPE_CHECKING:
    from skewless.serving.app import AddedRoutes

_PLATFORMS: tuple[str, ...] = get_args(Platform)


class ContainerPlatform(Protocol):
    """A platform, an entry point of ``skewless.platforms`` under its name in the setting ``platform``.

    Both methods read the environment variables of the container; for one that is missing or invalid, they raise a
    ``DefinitionError``.
    """

    def locate_project(self, given: Path | None, environment: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
        """Return the folder of the project, and the settings that the platform determines; called before the start.

        A folder in a bucket or an archive is copied first, which may take minutes.

        Args:
            given: folder of the project, instead of the platform's.

        Raises:
            PlaceError: the platform has mounted no bundle.
            StoreError: the bucket or the disk failed.
        """
        ...

    def open_routes(self, environment: Mapping[str, str]) -> AddedRoutes:
        """Return the routes of the platform; called in each worker before it listens."""
        ...


def find_platform(option: str | None, environment: Mapping[str, str]) -> Platform:
    """Return the platform that an option or ``SKEWLESS_PLATFORM`` names; the option wins.

    Raises:
        DefinitionError: there is no such platform.
    """
    name = option or read_variables(environment).get("platform") or "none"
    if name not in _PLATFORMS:
        raise DefinitionError("setting 'platform'", "is unknown", value=name, fix=f"use one of {', '.join(_PLATFORMS)}")
    return cast("Platform", name)


def require_platform(name: Platform) -> ContainerPlatform | None:
    """Return a platform; None for ``none``.

    Raises:
        DefinitionError: it is not installed.
    """
    if name == "none":
        return None
    return cast("ContainerPlatform", require_plugin("skewless.platforms", name, "platforms"))


def open_routes(name: Platform, environment: Mapping[str, str]) -> AddedRoutes | None:
    """Return the routes of a platform; None for ``none``.

    Raises:
        DefinitionError: the platform is not installed, or a variable of it is missing or invalid.
    """
    platform = require_platform(name)
    return None if platform is None else platform.open_routes(environment)
