"""Aliases of a model's versions (champion, challenger, ...): moved by compare-and-set, history kept."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.durable import exclusive, refused, sync_folder, write_durable
from infra.packages.names import alias_folder, model_folder, number, version_folder
from skewless.errors import ConflictError, PackageError

_LEFTOVER = ".move-"


@dataclass(frozen=True, kw_only=True)
class Move:
    """One move of an alias.

    Args:
        number: 1 for the first move.
        expect: the version that held the alias before, None at first.
        to: the version that holds it since.
        reason: why, in a sentence.
        at_us: when, UTC microseconds.
    """

    number: int
    expect: str | None
    to: str
    reason: str
    at_us: int


class Aliases:
    """The aliases below one packages folder.

    A move is a numbered file that is linked into place whole or not at all; the newest one is the
    value. So a move is atomic, the history costs nothing, and a kill at any point loses nothing.

    Args:
        root: folder of all models' packages.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, model: str, alias: str) -> str | None:
        """Return the version that holds the alias, None if it never moved."""
        last = self._last(model, alias)
        return last.to if last else None

    def history(self, model: str, alias: str) -> list[Move]:
        """Return every move, oldest first."""
        return list(self.backwards(model, alias))[::-1]

    def backwards(self, model: str, alias: str) -> Iterator[Move]:
        """Yield every move, newest first; what is not asked for is not read."""
        folder = alias_folder(self._root, model, alias)
        return (_read(folder / f"{number(entry)}.json") for entry in reversed(_entries(folder)))

    def names(self, model: str) -> list[str]:
        """Return the aliases of a model that ever moved, sorted."""
        folder = model_folder(self._root, model) / "aliases"
        if not folder.is_dir():
            return []
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and _entries(path))

    def move(self, model: str, alias: str, *, expect: str | None, to: str, reason: str, now_us: int) -> Move:
        """Move the alias from the version that is expected to hold it.

        Args:
            model: the model's name.
            alias: the alias.
            expect: the version that must hold it now; None: nobody does.
            to: the version that shall hold it, which must exist.
            reason: why, kept in the history.
            now_us: the clock, UTC microseconds.

        Raises:
            ConflictError: another version holds it, now or by the time of the write.
            PackageError: no such version.
            StoreError: the disk refused; nothing moved.
        """
        version_folder(self._root, model, to)
        folder = alias_folder(self._root, model, alias)
        last = self._last(model, alias)
        if (last.to if last else None) != expect:
            raise self._conflict(model, alias, expect)
        move = Move(number=last.number + 1 if last else 1, expect=expect, to=to, reason=reason, at_us=now_us)
        try:
            with exclusive(model_folder(self._root, model) / ".aliases.lock"):
                _append(folder, move)
        except FileExistsError as error:
            raise self._conflict(model, alias, expect) from error
        except OSError as error:
            raise refused(folder, error) from error
        return move

    def _last(self, model: str, alias: str) -> Move | None:
        return next(self.backwards(model, alias), None)

    def _conflict(self, model: str, alias: str, expect: str | None) -> ConflictError:
        holder = self.get(model, alias)
        return ConflictError(
            f"alias {alias!r} of model {model!r}",
            f"is held by version {holder!r}, not by {expect!r}" if holder else f"is held by nobody, not by {expect!r}",
            fix="look at its history and decide again",
        )


def _append(folder: Path, move: Move) -> None:
    """Link the move's file under its number; FileExistsError if somebody else has it."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_LEFTOVER}*"):
        leftover.unlink(missing_ok=True)
    staging = folder / f"{_LEFTOVER}{secrets.token_hex(8)}"
    write_durable(staging, (json.dumps(asdict(move), sort_keys=True) + "\n").encode())
    try:
        os.link(staging, folder / f"{number(move.number)}.json")
    finally:
        staging.unlink(missing_ok=True)
    for place in (folder, folder.parent, folder.parent.parent):
        sync_folder(place)


def _entries(folder: Path) -> list[int]:
    """Return the numbers of the moves, oldest first."""
    try:
        with os.scandir(folder) as entries:
            stems = (entry.name.removesuffix(".json") for entry in entries if entry.name.endswith(".json"))
            return sorted(int(stem) for stem in stems if stem.isdigit())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: Path) -> Move:
    try:
        return Move(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        thing = f"alias entry '{path.parent.name}/{path.name}'"
        raise PackageError(thing, "is not a move", fix="restore the file, or move it out of the folder") from error
