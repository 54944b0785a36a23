"""How far each sink has stored the decisions, its dead letters, and why nothing is delivered now."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents, Records

MOST_LETTERS = 1_000
_POSITIONS, _LETTERS, _RESENT, _TROUBLES = "sink_positions", "dead_letters", "resent_letters", "sink_troubles"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A decision that a sink refuses for good: sending it again cannot help.

    Args:
        id: of the decision.
        position: in the prediction log.
        reason: in a clause, without values of the decision.
    """

    id: str
    position: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class SinkPosition:
    """The confirmed position of a sink.

    Args:
        next: every decision of the prediction log before this position is confirmed or refused.
        confirmed: number of decisions that the sink has confirmed when they were first sent.
        refused: number of decisions that it refused for good then; `SinkPositions.count_resent` of them are stored.
        claimed: last position of a batch that may have been written; the next delivery has the same batch. None: none.
        facts: what must stay the same for the same bytes, for example the id of a schema.
    """

    next: int
    confirmed: int = 0
    refused: int = 0
    claimed: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SinkTrouble:
    """Why nothing is delivered to a sink.

    Args:
        error: of the last attempt, without secrets.
        since_us: time of the first failed attempt, UTC microseconds.
        retries: failed attempts since then.
    """

    error: str
    since_us: int
    retries: int


class SinkPositions:
    """The positions, the dead letters and the troubles of a project's sinks; any process may read them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._documents = Documents(database, _POSITIONS)
        self._letters = Records(database, _LETTERS)
        self._resent = Documents(database, _RESENT)  # not in the position, which the delivering process writes whole
        self._troubles = Documents(database, _TROUBLES)

    def read(self, sink: str) -> SinkPosition | None:
        """Return the position of a sink, None if nothing was ever delivered to it."""
        body = self._documents.get(sink)
        return None if body is None else SinkPosition(**body)

    def begin(self, sink: str, position: int) -> SinkPosition:
        """Return the position of a sink; a new sink begins at a position of the prediction log."""
        if (known := self.read(sink)) is not None:
            return known
        with self._documents.edit(sink, asdict(SinkPosition(next=position))) as body:
            return SinkPosition(**body)

    def write(self, sink: str, position: SinkPosition, refusals: Sequence[Refusal], check: Callable[[], None]) -> None:
        """Record a position and new dead letters in one transaction; ``check`` is its fence.

        Raises:
            ConflictError: another process delivers to the sink; nothing was written.
            StoreError: the database is unavailable.
        """
        with self._database.transaction():
            check()
            self._documents.put(sink, asdict(position))
            self._add_letters(sink, refusals)

    def read_trouble(self, sink: str) -> SinkTrouble | None:
        """Return why nothing is delivered to a sink; None: nothing is wrong."""
        body = self._troubles.get(sink)
        return None if body is None else SinkTrouble(**body)

    def write_trouble(self, sink: str, trouble: SinkTrouble | None) -> None:
        """Record why nothing is delivered to a sink; None: nothing is wrong any more."""
        if trouble is None:
            self._troubles.delete(sink)
        else:
            self._troubles.put(sink, asdict(trouble))

    def dead_letters(self, sink: str, most: int = MOST_LETTERS) -> list[Refusal]:
        """Return the latest refused decisions of a sink, latest first; the prediction log has the decisions."""
        return [Refusal(**body) for _, body in self._letters.read_latest_first(sink, most)]

    def count_letters(self, sink: str) -> int:
        """Return the number of dead letters of a sink that are kept."""
        return self._letters.count(sink)

    def count_resent(self, sink: str) -> int:
        """Return the number of dead letters that a sink has stored after they were sent again."""
        return self._resent.get(sink) or 0

    def settle_letters(
        self, sink: str, ids: Collection[str], refusals: Sequence[Refusal], check: Callable[[], None]
    ) -> None:
        """Remove dead letters that were sent again, and add the new refusals, in one transaction.

        Args:
            ids: of the decisions that were sent.
            refusals: the decisions that were refused again.
            check: the fence; raises ConflictError if another process sends them.
        """
        with self._database.transaction():
            check()
            settled = [number for number, body in self._letters.read_latest_first(sink) if body["id"] in ids]
            for number in settled:
                self._letters.delete(sink, number)
            self._resent.put(sink, self.count_resent(sink) + len(settled) - len(refusals))
            self._add_letters(sink, refusals)

    def _add_letters(self, sink: str, refusals: Sequence[Refusal]) -> None:
        for refusal in refusals:
            self._letters.add(sink, asdict(refusal))
        if refusals:
            self._letters.delete_before(sink, self._letters.latest_number(sink) - MOST_LETTERS + 1)
