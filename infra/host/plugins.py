"""Loads code of other packages that is registered as an entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from skewless.contract.errors import DefinitionError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

Group = Literal["skewless.online_stores", "skewless.runtimes", "skewless.trainers"]


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
    return [_load(entry_point, group) for entry_point in _entry_points(group, name)]


def _load(entry_point: EntryPoint, group: Group) -> Any:  # noqa: ANN401 - as above
    try:
        return entry_point.load()
    except (ImportError, AttributeError) as error:
        raise DefinitionError(
            f"entry point {entry_point.name!r} of {group}",
            f"cannot be imported: {error}",
            value=entry_point.value,
            fix="repair or remove the package that registers it",
        ) from error


def _entry_points(group: Group, name: str) -> EntryPoints:
    from importlib.metadata import entry_points  # noqa: PLC0415 - reads every installed package: only on demand

    return entry_points(group=group, name=name)
