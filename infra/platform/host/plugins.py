"""Loads code that an installed package registers as an entry point: plug-ins of skewless, and those of its users.

Each group of entry points is a port. ``docs/extending.md`` lists them with the type that each expects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from skewless.contract.errors import DefinitionError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

Group = Literal[
    "skewless.checkups",
    "skewless.codecs",
    "skewless.commands",
    "skewless.databases",
    "skewless.deciders",
    "skewless.doors",
    "skewless.engines",
    "skewless.online_stores",
    "skewless.platforms",
    "skewless.pages",
    "skewless.routes",
    "skewless.runtimes",
    "skewless.storages",
    "skewless.streams",
    "skewless.tasks",
    "skewless.telemetry",
    "skewless.tokens",
    "skewless.trackers",
    "skewless.trainers",
]


def is_registered(group: Group, name: str) -> bool:
    """Return whether an installed package registers a name; nothing is imported."""
    return bool(_entry_points(group, name))


def find_plugin(group: Group, name: str) -> Any | None:  # noqa: ANN401 - any object may be registered
    """Import and return the object that an installed package registers under a name; None if there is none.

    Raises:
        DefinitionError: the registered object cannot be imported.
    """
    return next(iter(find_plugins(group, name)), None)


def find_plugins(group: Group, name: str) -> list[Any]:
    """Import and return the objects that installed packages register under a name; see ``find_plugin``."""
    return [_load(entry_point) for entry_point in _entry_points(group, name)]


def require_plugin(group: Group, name: str, extra: str = "") -> Any:  # noqa: ANN401 - as above
    """Import and return the object that an installed package registers under a name.

    Args:
        extra: of skewless that installs the package; empty: it has the name.

    Raises:
        DefinitionError: no installed package registers the name, or the registered object cannot be imported.
    """
    registered = find_plugin(group, name)
    if registered is None:
        fix = f"pip install 'skewless[{extra or name}]', or the package that registers it"
        raise DefinitionError(f"{group.removeprefix('skewless.')[:-1]} {name!r}", "is not installed", fix=fix)
    return registered


def load_plugins(group: Group) -> dict[str, Any]:
    """Import and return all objects that installed packages register in a group, by name in alphabetical order.

    Raises:
        DefinitionError: a registered object cannot be imported.
    """
    return {entry_point.name: _load(entry_point) for entry_point in sorted(_entry_points(group))}


def plugin_names(group: Group) -> list[str]:
    """Return the names that installed packages register in a group, in alphabetical order; nothing is imported."""
    return sorted(_entry_points(group).names)


def _load(entry_point: EntryPoint) -> Any:  # noqa: ANN401 - any object may be registered
    try:
        return entry_point.load()
    except (ImportError, AttributeError) as error:
        package = entry_point.dist.name if entry_point.dist else entry_point.module
        raise DefinitionError(
            f"entry point {entry_point.name!r} of {entry_point.group}",
            f"cannot be imported: {error}",
            value=entry_point.value,
            fix=f"install package {package!r} with its requirements again, or remove it",
        ) from error


def _entry_points(group: Group, name: str | None = None) -> EntryPoints:
    from importlib.metadata import entry_points  # noqa: PLC0415 - reads every installed package: only on demand

    return entry_points(group=group) if name is None else entry_points(group=group, name=name)
