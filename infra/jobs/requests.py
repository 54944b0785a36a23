"""What people and triggers ask of the scheduler: begin a run, or end one; a file each, which the holder takes up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skewless.contract.errors import ConflictError
from skewless.infra.jobs.ledger import FOLDER
from skewless.infra.jobs.run import RunId
from skewless.infra.storage.durable import create_durable

Kind = Literal["start", "cancel"]
_KINDS: tuple[Kind, ...] = ("start", "cancel")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One wish.

    Args:
        kind: ``start`` the run, or ``cancel`` it.
        cause: why, in words.
    """

    kind: Kind
    run_id: RunId
    cause: str


class Requests:
    """The open requests of one project.

    A request is removed after it was done; to do it twice changes nothing, since a run begins once and ends once.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: Path) -> None:
        self._root = state / FOLDER / "requests"

    def put(self, request: Request) -> None:
        """Ask.

        Raises:
            ConflictError: the same was asked for already.
            StoreError: the disk refused.
        """
        try:
            create_durable(self._path(request), (json.dumps({"cause": request.cause}) + "\n").encode())
        except FileExistsError as error:
            thing = f"run {str(request.run_id)!r}"
            raise ConflictError(thing, f"already has a request to {request.kind}", fix="wait for it") from error

    def open(self) -> list[Request]:
        """Return what was asked for and not yet done, oldest tick first."""
        found = [
            Request(kind=kind, run_id=RunId.parse(path.stem), cause=json.loads(path.read_bytes())["cause"])
            for kind in _KINDS
            for path in (self._root / kind).glob("[!.]*.json")
        ]
        return sorted(found, key=lambda request: (request.run_id.tick_us, request.run_id.job))

    def done(self, request: Request) -> None:
        """Take a request off the list."""
        self._path(request).unlink(missing_ok=True)

    def _path(self, request: Request) -> Path:
        return self._root / request.kind / f"{request.run_id}.json"
