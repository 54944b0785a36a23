"""Code of other packages, found by the name that it registers as an entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from skewless.contract.errors import DefinitionError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

Group = Literal["skewless.online_stores", "skewless.runtimes", "skewless.trainers"]


def is_registered(group: Group, name: str) -> bool:
    """Say whether an installed package registers a name; nothing of it is imported."""
    return bool(_entry_points(group, name))


def find_plugin(group: Group, name: str) -> Any | None:  # noqa: ANN401 - whatever the other package registers
    """Return what an installed package registers under a name, imported now; None where none does.

    Raises:
        DefinitionError: it is registered and cannot be imported.
    """
    for found in _entry_points(group, name):
        try:
            return found.load()
        except (ImportError, AttributeError) as error:
            raise DefinitionError(
                f"entry point {name!r} of {group}",
                f"cannot be imported: {error}",
                value=found.value,
                fix="repair or remove the package that registers it",
            ) from error
    return None


def _entry_points(group: Group, name: str) -> EntryPoints:
    from importlib.metadata import entry_points  # noqa: PLC0415 - reads every installed package: only if asked

    return entry_points(group=group, name=name)
