"""Aliases of a model's versions (champion, ...): moved by compare-and-set, with a history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skewless.contract.errors import ConflictError
from skewless.infra.storage.names import alias_folder, model_folder, version_folder
from skewless.infra.storage.numbered_files import NumberedFiles


@dataclass(frozen=True, kw_only=True)
class AliasMove:
    """One move of an alias.

    Args:
        number: 1 for the first move.
        expect: the version that held the alias before, None for the first move.
        to: the version that holds it now.
        reason: in a sentence.
        at_us: time of the move, UTC microseconds.
    """

    number: int
    expect: str | None
    to: str
    reason: str
    at_us: int


class Aliases:
    """The aliases in one packages folder.

    Each move is a numbered file; the latest file is the value.

    Args:
        root: folder of all models' packages.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, model: str, alias: str) -> str | None:
        """Return the version that holds the alias, None if it was never set."""
        last = self._last(model, alias)
        return last.to if last else None

    def number(self, model: str, alias: str) -> int | None:
        """Return the number of the last move without reading it, None if it never moved."""
        numbers = self._files(model, alias).numbers()
        return numbers[-1] if numbers else None

    def history(self, model: str, alias: str) -> list[AliasMove]:
        """Return every move, oldest first."""
        return list(self.read_latest_first(model, alias))[::-1]

    def read_latest_first(self, model: str, alias: str) -> Iterator[AliasMove]:
        """Yield every move, latest first; files are read on demand."""
        files = self._files(model, alias)
        return (_decode_move(files, number, data) for number, data in files.read_latest_first())

    def previous(self, model: str, alias: str) -> str | None:
        """Return the version that held the alias before the current holder, None if there was none.

        A move back to the previous version undoes a step; every other move adds a step, even to an old version.
        """
        path: list[str] = []
        for move in self.history(model, alias):
            path = path[:-1] if path[-2:-1] == [move.to] else [*path, move.to]
        return path[-2] if len(path) > 1 else None

    def names(self, model: str) -> list[str]:
        """Return the aliases of a model, sorted."""
        folder = model_folder(self._root, model) / "aliases"
        if not folder.is_dir():
            return []
        names = (path.name for path in folder.iterdir() if path.is_dir())
        return sorted(name for name in names if self._files(model, name).numbers())

    def move(self, model: str, alias: str, *, expect: str | None, to: str, reason: str, now_us: int) -> AliasMove:
        """Move the alias to a version, if the expected version holds it now.

        Args:
            model: the model's name.
            alias: the alias.
            expect: the version that must hold it now; None: no version does.
            to: the new holder, which must exist.
            reason: a sentence for the history.
            now_us: the clock, UTC microseconds.

        Raises:
            ConflictError: another version holds it, now or at the time of the write.
            PackageError: the version does not exist.
            StoreError: the disk refused the write; the alias is unchanged.
        """
        # Raises if the version does not exist.
        version_folder(self._root, model, to)
        last = self._last(model, alias)
        if (last.to if last else None) != expect:
            raise self._conflict(model, alias, expect)
        move = AliasMove(number=last.number + 1 if last else 1, expect=expect, to=to, reason=reason, at_us=now_us)
        try:
            self._files(model, alias).append(move.number, asdict(move))
        except FileExistsError as error:
            raise self._conflict(model, alias, expect) from error
        return move

    def _files(self, model: str, alias: str) -> NumberedFiles:
        lock = model_folder(self._root, model) / ".aliases.lock"
        return NumberedFiles(alias_folder(self._root, model, alias), lock, "alias entry")

    def _last(self, model: str, alias: str) -> AliasMove | None:
        return next(self.read_latest_first(model, alias), None)

    def _conflict(self, model: str, alias: str, expect: str | None) -> ConflictError:
        holder = self.get(model, alias)
        return ConflictError(
            f"alias {alias!r} of model {model!r}",
            f"is held by version {holder!r}, not by {expect!r}"
            if holder
            else f"is held by no version, not by {expect!r}",
            fix="read its history and decide again",
        )


def _decode_move(files: NumberedFiles, number: int, data: Any) -> AliasMove:  # noqa: ANN401 - any JSON value
    try:
        return AliasMove(**data)
    except TypeError as error:
        raise files.corrupt_error(number) from error
