"""Requests to the scheduler, by people and triggers, to start or cancel a run: a file each, until it is handled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skewless.contract.errors import ConflictError
from skewless.infra.jobs.ledger import FOLDER
from skewless.infra.jobs.run import RunId
from skewless.infra.storage.durable import create_durable
from skewless.infra.storage.project_state import ProjectState

Kind = Literal["start", "cancel"]
_KINDS: tuple[Kind, ...] = ("start", "cancel")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to start or cancel a run.

    Args:
        kind: ``start`` the run, or ``cancel`` it.
        cause: the reason, as text.
    """

    kind: Kind
    run_id: RunId
    cause: str


class Requests:
    """The open requests of one project.

    A request is removed after it was handled. Handling it twice is harmless, because a run starts and ends once.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: ProjectState) -> None:
        self._root = state / FOLDER / "requests"

    def put(self, request: Request) -> None:
        """Store a request.

        Raises:
            ConflictError: the same request is open.
            StoreError: the disk refused the write.
        """
        try:
            create_durable(self._path(request), (json.dumps({"cause": request.cause}) + "\n").encode())
        except FileExistsError as error:
            thing = f"run {str(request.run_id)!r}"
            raise ConflictError(thing, f"already has a request to {request.kind}", fix="wait for it") from error

    def open(self) -> list[Request]:
        """Return the open requests, oldest tick first."""
        # Names with a leading dot are temporary files of writers.
        requests = [
            Request(kind=kind, run_id=RunId.parse(path.stem), cause=json.loads(path.read_bytes())["cause"])
            for kind in _KINDS
            for path in (self._root / kind).glob("[!.]*.json")
        ]
        return sorted(requests, key=lambda request: (request.run_id.tick_us, request.run_id.job))

    def remove(self, request: Request) -> None:
        """Delete a request, after it was handled."""
        self._path(request).unlink(missing_ok=True)

    def _path(self, request: Request) -> Path:
        return self._root / request.kind / f"{request.run_id}.json"
