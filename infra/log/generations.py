"""Which generations of a windowed view's states there are (SEMANTICS 4.6): one is read, and its elder for a while.

::

    building ---> live ---> draining ---> gone
       |          read       written until no server reads it
       +---> given up        by a loader that was killed, or was overtaken by another

A file for each view says so, changed under a lock; the online store holds a copy of what servers need to know.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from skewless.contract.errors import ConflictError
from skewless.contract.windows.view import WindowView
from skewless.infra.storage.durable import exclusive, make_folder, refused, replace_durable

Stage = Literal["building", "live", "draining", "given up"]


class ViewVersion(Protocol):
    """What tells one version of a windowed view from others."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def hash(self) -> str:
        """The identity of its states."""
        ...


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One life of a view's states.

    Args:
        number: from 1.
        partitions: log partitions that have been applied to it, sorted.
        since_us: when it came to its stage, microseconds.
    """

    number: int
    stage: Stage
    partitions: tuple[str, ...]
    since_us: int

    @property
    def pointer(self) -> bytes:
        """Return what servers are told of it when it is read."""
        return json.dumps({"generation": self.number, "partitions": self.partitions}).encode()


def read_pointer(text: bytes) -> tuple[int, list[str]] | None:
    """Return generation and partitions of a pointer, as `Generation.pointer` makes it; None: it is damaged.

    >>> [read_pointer(text) for text in (b'{"generation": 1, "partitions": ["p"]}', b'{"generation": "1"}', b"[")]
    [(1, ['p']), None, None]
    """
    try:
        told = json.loads(text)
        number, partitions = told["generation"], told["partitions"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    sound = isinstance(number, int) and isinstance(partitions, list) and all(isinstance(p, str) for p in partitions)
    return (number, partitions) if sound else None


class Generations:
    """The generations of the windowed views of one project.

    Args:
        state: the project's state folder.

    Attributes:
        folder: of the files about windows.
    """

    def __init__(self, state: Path) -> None:
        self.folder = state / "windows"

    def building(self, view: ViewVersion) -> Path:
        """Return the lock file that is held by who builds states of a view."""
        return self._path(view).with_suffix(".build.lock")

    def of(self, view: ViewVersion) -> tuple[Generation, ...]:
        """Return the generations of a view, oldest first."""
        try:
            data = json.loads(self._path(view).read_text())
        except FileNotFoundError:
            return ()
        return tuple(Generation(**{**item, "partitions": tuple(item["partitions"])}) for item in data["generations"])

    def live(self, view: ViewVersion) -> Generation | None:
        """Return the generation that is read, if there is one."""
        return next((item for item in self.of(view) if item.stage == "live"), None)

    def written(self, view: ViewVersion) -> tuple[Generation, ...]:
        """Return the generations that events are applied to."""
        return tuple(item for item in self.of(view) if item.stage in {"live", "draining"})

    def version(self, view: ViewVersion) -> tuple[int, int]:
        """Return what changes whenever the generations of a view do."""
        try:
            stat = self._path(view).stat()
        except FileNotFoundError:
            return (0, 0)
        return (stat.st_mtime_ns, stat.st_ino)

    def has_served(self, source: str) -> bool:
        """Say whether states of a source have ever been read: what is imported from then on is not history."""
        return self._served(source).exists()

    def mark_served(self, source: str) -> None:
        """Note that states of a source are about to be read; call it while nobody else may apply its events.

        Raises:
            StoreError: the disk refused.
        """
        if not self.has_served(source):
            replace_durable(self._served(source), b"")

    def begin(self, view: ViewVersion, partitions: Sequence[str], now_us: int) -> Generation:
        """Give out the next number to a generation that is being built; building ones before it were given up."""
        with self._changed(view) as data:
            number = data["last"] = data["last"] + 1
            for item in data["generations"]:
                if item["stage"] == "building":
                    item["stage"], item["since_us"] = "given up", now_us
            fresh = Generation(number=number, stage="building", partitions=tuple(sorted(partitions)), since_us=now_us)
            data["generations"].append(asdict(fresh))
        return fresh

    def switch(self, view: WindowView, number: int, now_us: int) -> None:
        """Make a built generation the live one; the one before drains.

        Raises:
            ConflictError: another was begun meanwhile, so that this one was given up.
        """
        with self._changed(view) as data:
            stages = {item["number"]: item for item in data["generations"] if item["stage"] in {"building", "live"}}
            if stages.get(number, {}).get("stage") != "building":
                raise ConflictError(
                    f"view {view.name!r}",
                    "was being built by another process too, which goes on",
                    value=number,
                    fix="run `skewless backfill` once at a time",
                )
            for item in stages.values():
                item["stage"] = "live" if item["number"] == number else "draining"
                item["since_us"] = now_us

    def add_partitions(self, view: ViewVersion, partitions: Sequence[str]) -> bool:
        """Note that partitions are applied to all generations of a view; return whether one was new."""
        if all(set(partitions) <= set(item.partitions) for item in self.of(view)):
            return False
        with self._changed(view) as data:
            for item in data["generations"]:
                item["partitions"] = sorted({*item["partitions"], *partitions})
        return True

    def retire(self, view: ViewVersion, number: int) -> None:
        """Forget a generation that nobody reads any more."""
        with self._changed(view) as data:
            data["generations"] = [item for item in data["generations"] if item["number"] != number]

    @contextmanager
    def _changed(self, view: ViewVersion) -> Iterator[dict[str, Any]]:
        path = self._path(view)
        with _opened_disk(path), exclusive(path.with_suffix(".lock")):
            data = json.loads(path.read_text()) if path.exists() else {"last": 0, "generations": []}
            yield data
            replace_durable(path, json.dumps(data).encode())

    def _served(self, source: str) -> Path:
        return self.folder / f"{source}.served"

    def _path(self, view: ViewVersion) -> Path:
        return self.folder / f"{view.name}-{view.hash}.json"


@contextmanager
def applying(log_folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Hold the right to apply a source's events: many may, but nobody while one switches a generation alone.

    Args:
        log_folder: of the source.
    """
    with ExitStack() as stack:
        with _opened_disk(log_folder):
            make_folder(log_folder)
            gate, lock = (stack.enter_context((log_folder / name).open("ab")) for name in ("apply.gate", "apply.lock"))
        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        # Who comes while one waits to be alone waits behind it: many who take turns would never let it in.
        fcntl.flock(gate, how)
        fcntl.flock(lock, how)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@contextmanager
def _opened_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise refused(path, error) from error
