"""Requests to the scheduler, by people and triggers, to start or cancel a run, until they are handled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from skewless.contract.errors import ConflictError
from skewless.infra.jobs.run import RunId
from skewless.infra.storage.documents import Documents
from skewless.infra.storage.project_state import ProjectState

Kind = Literal["start", "cancel"]
_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}


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

    @property
    def name(self) -> str:
        """Return the kind and the run, as ``start/drift:fraud@19700101T000001Z``."""
        return f"{self.kind}/{self.run_id}"


class Requests:
    """The open requests of one project.

    A request is removed after it was handled. Handling it twice is harmless, because a run starts and ends once.
    """

    def __init__(self, state: ProjectState) -> None:
        self._documents = Documents(state.database, "run_request")

    def put(self, request: Request) -> None:
        """Store a request.

        Raises:
            ConflictError: the same request is open.
            StoreError: the database is unavailable.
        """
        if not self._documents.create(request.name, {"cause": request.cause}):
            thing = f"run {str(request.run_id)!r}"
            raise ConflictError(thing, f"already has a request to {request.kind}", fix="wait for it")

    def open(self) -> list[Request]:
        """Return the open requests, oldest tick first."""
        requests = []
        for name, body in self._documents.list_all().items():
            kind, _, run_id = name.partition("/")
            requests.append(Request(kind=_KINDS[kind], run_id=RunId.parse(run_id), cause=body["cause"]))
        return sorted(requests, key=lambda request: (request.run_id.tick_us, request.run_id.job))

    def remove(self, request: Request) -> None:
        """Delete a request, after it was handled."""
        self._documents.delete(request.name)
