"""The audit log: who changed what, when, and from where.

A record is written before the change, its outcome after it.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from skewless.contract.errors import SkewlessError
from skewless.contract.plain_record import PlainRecord
from skewless.contract.render import shorten
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Records

_LOG = "project"
_MOST_CHARS = 500
COMMAND_LINE = "command line"


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who changes something.

    Args:
        name: ``USER@HOST`` of the command line; in the control room the name of a key or of a person.
        place: the command line, or the page.
    """

    name: str
    place: str


def local_actor() -> Actor:
    """Return the user of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return Actor(name=f"{user}@{socket.gethostname()}", place=COMMAND_LINE)


@dataclass(frozen=True, kw_only=True)
class AuditRecord(PlainRecord):
    """A change that somebody made, or tried to make.

    Args:
        number: from 1, without gaps.
        at_us: time of the request, UTC microseconds, by the clock of the database.
        who, place: the actor.
        action: the method of ``Project``, such as ``promote`` or ``keys.add``.
        subject: what it was about, such as a model; empty: the project.
        arguments: further arguments, as text; no secret and no key of an entity.
        ended_us: time of the outcome; None: in progress, or the process ended.
        problem: why nothing, or not all, was changed; None: it was done, or ``ended_us`` is None.
        result: what has changed.
    """

    number: int
    at_us: int
    who: str
    place: str
    action: str
    subject: str = ""
    arguments: Mapping[str, str]
    ended_us: int | None = None
    problem: str | None = None
    result: Mapping[str, Any] | None = None


class AuditLog:
    """The audit log of a project, in its database.

    Args:
        database: of the project.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._requests, self._outcomes = Records(database, "audit"), Records(database, "audit_outcome")

    @contextmanager
    def record(
        self, actor: Actor, action: str, subject: str = "", arguments: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Record a change around the block that makes it; what the block puts into the yielded dict is the result.

        Raises:
            StoreError: the request cannot be recorded; the block did not run.
        """
        body = {
            "at_us": self._database.now_us(),
            "who": shorten(actor.name, _MOST_CHARS),
            "place": shorten(actor.place, _MOST_CHARS),
            "action": action,
            "subject": shorten(subject, _MOST_CHARS),
            "arguments": {name: shorten(text, _MOST_CHARS) for name, text in (arguments or {}).items()},
        }
        number = self._requests.add(_LOG, body)
        result: dict[str, Any] = {}
        problem: str | None = "it was interrupted"
        try:
            yield result
            problem = None
        except SkewlessError as error:
            problem = error.sentence()
            raise
        finally:
            ended = {"ended_us": self._database.now_us(), "problem": problem, "result": result}
            self._outcomes.append(_LOG, number, ended)

    def read(self, most: int, before: int | None = None) -> list[AuditRecord]:
        """Return the latest records before a number, the latest first.

        Args:
            before: None: all.
        """
        last = self._requests.latest_number(_LOG) if before is None else before - 1
        return [record for number in range(last, max(last - most, 0), -1) if (record := self.get(number))]

    def get(self, number: int) -> AuditRecord | None:
        """Return a record; None: there is none with this number."""
        body = self._requests.read(_LOG, number)
        if body is None:
            return None
        return AuditRecord(number=number, **body, **(self._outcomes.read(_LOG, number) or {}))
