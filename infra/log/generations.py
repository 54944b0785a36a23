"""Tracks the generations of a windowed view's states (SEMANTICS 4.6): one is read, older ones are drained.

::

    building ---> live ---> draining ---> removed
       |          read       written until no server reads it
       +---> given up        its backfill was killed, or another one replaced it

The generations of each view are one document. The online store holds a copy for servers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from skewless.contract.errors import ConflictError
from skewless.contract.plain_record import build_record
from skewless.contract.windows.view import WindowView
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.leases import Lease, Leases
from skewless.infra.platform.storage.project_state import ProjectState

Stage = Literal["building", "live", "draining", "given up"]


class ViewVersion(Protocol):
    """The identity of one version of a windowed view."""

    @property
    def name(self) -> str:
        """Name of the view."""
        ...

    @property
    def hash(self) -> str:
        """Hash that identifies its states."""
        ...


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One build of a view's states.

    Args:
        number: from 1.
        stage: of its life.
        partitions: log partitions that have been applied to it, sorted.
        since_us: when it reached its stage, microseconds.
    """

    number: int
    stage: Stage
    partitions: tuple[str, ...]
    since_us: int

    @property
    def pointer(self) -> bytes:
        """Return the value that tells servers to read this generation."""
        return json.dumps({"generation": self.number, "partitions": self.partitions}).encode()


def read_pointer(text: bytes) -> tuple[int, list[str]] | None:
    """Return generation and partitions from a value of ``Generation.pointer``; None if it is corrupt.

    >>> [read_pointer(text) for text in (b'{"generation": 1, "partitions": ["p"]}', b'{"generation": "1"}', b"[")]
    [(1, ['p']), None, None]
    """
    try:
        pointer = json.loads(text)
        number, partitions = pointer["generation"], pointer["partitions"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    is_valid = isinstance(number, int) and isinstance(partitions, list) and all(isinstance(p, str) for p in partitions)
    return (number, partitions) if is_valid else None


class Generations:
    """The generations of the windowed views of one project.

    Args:
        state: the project's state folder.

    Attributes:
        folder: with hints of this machine about windowed views.
    """

    def __init__(self, state: ProjectState) -> None:
        self.folder = state / "windows"
        self._database = state.database
        self._documents = Documents(self._database, "generations")
        self._served = Documents(self._database, "served_source")
        self._leases = Leases(self._database)

    def hold_build(self, view: ViewVersion) -> AbstractContextManager[Lease]:
        """Wait for other backfills of a view, and exclude them during the block."""
        return self._leases.hold(f"build {_name(view)}")

    def hold_apply_lock(self, source: str, *, alone: bool = False) -> AbstractContextManager[None]:
        """Hold the right to apply a source's events: shared by many processes, or alone to switch a generation.

        Args:
            source: of the events.
            alone: exclude all others.
        """
        return self._database.hold_lock(f"apply {source}", shared=not alone)

    def list_all(self, view: ViewVersion) -> tuple[Generation, ...]:
        """Return all generations of a view, oldest first."""
        data = self._documents.get(_name(view))
        items = data["generations"] if data else ()
        return tuple(build_record(Generation, item) for item in items)

    def find_live(self, view: ViewVersion) -> Generation | None:
        """Return the generation that is read, or None."""
        return next((item for item in self.list_all(view) if item.stage == "live"), None)

    def list_written(self, view: ViewVersion) -> tuple[Generation, ...]:
        """Return the generations to which events are applied."""
        return tuple(item for item in self.list_all(view) if item.stage in {"live", "draining"})

    def read_version(self, view: ViewVersion) -> int:
        """Return a number that increases whenever the generations of a view change."""
        return self._documents.revision(_name(view))

    def has_served(self, source: str) -> bool:
        """Return whether states of a source were ever read: imports after that are not history."""
        return self._served.revision(source) > 0

    def mark_served(self, source: str) -> None:
        """Record that states of a source are about to be read; call it while no other process applies its events.

        Raises:
            StoreError: the database is unavailable.
        """
        self._served.create(source, {})

    def begin(self, view: ViewVersion, partitions: Sequence[str], now_us: int) -> Generation:
        """Begin a generation with the next number; unfinished ones are given up."""
        with self._edit(view) as data:
            number = data["last"] = data["last"] + 1
            for item in data["generations"]:
                if item["stage"] == "building":
                    item["stage"], item["since_us"] = "given up", now_us
            generation = Generation(
                number=number, stage="building", partitions=tuple(sorted(partitions)), since_us=now_us
            )
            data["generations"].append(asdict(generation))
        return generation

    def switch(self, view: WindowView, number: int, now_us: int) -> None:
        """Make a built generation the live one; the previous one is drained.

        Raises:
            ConflictError: another backfill has begun since, so this generation was given up.
        """
        with self._edit(view) as data:
            stages = {item["number"]: item for item in data["generations"] if item["stage"] in {"building", "live"}}
            if stages.get(number, {}).get("stage") != "building":
                raise ConflictError(
                    f"view {view.name!r}",
                    "is being backfilled by another process, which continues",
                    value=number,
                    fix="run one `skewless backfill` at a time",
                )
            for item in stages.values():
                item["stage"] = "live" if item["number"] == number else "draining"
                item["since_us"] = now_us

    def add_partitions(self, view: ViewVersion, partitions: Sequence[str]) -> bool:
        """Record that partitions are applied to all generations of a view; return whether any was new."""
        if all(set(partitions) <= set(item.partitions) for item in self.list_all(view)):
            return False
        with self._edit(view) as data:
            for item in data["generations"]:
                item["partitions"] = sorted({*item["partitions"], *partitions})
        return True

    def give_up(self, view: ViewVersion, number: int) -> None:
        """Let no process write to a generation any more, while no other process applies its events."""
        with self._edit(view) as data:
            for item in data["generations"]:
                item["stage"] = "given up" if item["number"] == number else item["stage"]

    def retire(self, view: ViewVersion, number: int) -> None:
        """Remove a generation whose states are deleted: an interruption before leaves none that is not listed."""
        with self._edit(view) as data:
            data["generations"] = [item for item in data["generations"] if item["number"] != number]

    def _edit(self, view: ViewVersion) -> AbstractContextManager[dict[str, Any]]:
        return self._documents.edit(_name(view), {"last": 0, "generations": []})


def _name(view: ViewVersion) -> str:
    return f"{view.name}-{view.hash}"
