"""Aliases of a model's versions (champion, ...): moved by compare-and-set, with a history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from skewless.contract.errors import ConflictError, PackageError
from skewless.infra.storage.database import Database
from skewless.infra.storage.documents import Records
from skewless.infra.storage.names import alias_name, check_model_name
from skewless.infra.storage.package_folder import PackageFolder


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
    """The aliases of a project's models. Each move is a numbered record; the latest one is the value.

    Args:
        packages: of all models.
        database: of the project.
    """

    def __init__(self, packages: PackageFolder, database: Database) -> None:
        self._packages = packages
        self._moves = Records(database, "alias_move")

    def get(self, model: str, alias: str) -> str | None:
        """Return the version that holds the alias, None if it was never set."""
        last = self._last(model, alias)
        return last.to if last else None

    def number(self, model: str, alias: str) -> int | None:
        """Return the number of the last move without reading it, None if it never moved."""
        return self._moves.latest_number(alias_name(model, alias)) or None

    def history(self, model: str, alias: str) -> list[AliasMove]:
        """Return every move, oldest first."""
        return list(self.read_latest_first(model, alias))[::-1]

    def read_latest_first(self, model: str, alias: str) -> Iterator[AliasMove]:
        """Yield every move, latest first."""
        name = alias_name(model, alias)
        return (_decode_move(name, number, body) for number, body in self._moves.read_latest_first(name))

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
        prefix = f"{check_model_name(model)}/"
        return [name.removeprefix(prefix) for name in self._moves.names() if name.startswith(prefix)]

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
            StoreError: the database is unavailable; the alias is unchanged.
        """
        self._packages.check_version(model, to)
        last = self._last(model, alias)
        if (last.to if last else None) != expect:
            raise self._conflict(model, alias, expect)
        move = AliasMove(number=last.number + 1 if last else 1, expect=expect, to=to, reason=reason, at_us=now_us)
        try:
            # Another process may have moved it since the check above: the append decides.
            self._moves.append(alias_name(model, alias), move.number, asdict(move))
        except ConflictError as error:
            raise self._conflict(model, alias, expect) from error
        return move

    def _last(self, model: str, alias: str) -> AliasMove | None:
        name = alias_name(model, alias)
        last = self._moves.latest(name)
        return _decode_move(name, *last) if last else None

    def _conflict(self, model: str, alias: str, expect: str | None) -> ConflictError:
        holder = self.get(model, alias)
        return ConflictError(
            f"alias {alias!r} of model {model!r}",
            f"is held by version {holder!r}, not by {expect!r}"
            if holder
            else f"is held by no version, not by {expect!r}",
            fix="read its history and decide again",
        )


def _decode_move(name: str, number: int, body: Any) -> AliasMove:  # noqa: ANN401 - any JSON value
    try:
        return AliasMove(**body)
    except TypeError as error:
        fix = "restore the database from a backup"
        raise PackageError(f"alias {name!r}", f"has a corrupt move {number}", fix=fix) from error
