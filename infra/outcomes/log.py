"""Reads the outcome log: of all that was said about one thing, what holds, and how often it was said otherwise."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.infra.log.inventory import Inventory
from skewless.infra.outcomes.writer import FOLDER, SCHEMA

# What was known last holds; of that, what came last. Batch and row decide between what came in the same microsecond.
ORDER = "known_at, received_at, batch, row"
_SUBJECT = "prediction_id, model, keys, event_time"
# A merged file may stand beside the files that it was made of.
_SAID = """
    SELECT * FROM read_parquet($files)
    WHERE known_at <= $known_by
    QUALIFY row_number() OVER (PARTITION BY batch, row) = 1
"""
_JUDGED = f"""
    SELECT *,
        row_number() OVER subject AS place,
        row_number() OVER newest AS from_end,
        (label, value) IS NOT DISTINCT FROM (lag(label) OVER subject, lag(value) OVER subject) AS repeats,
        known_at = lag(known_at) OVER subject AS at_once,
        known_at < max(known_at) OVER earlier AS late
    FROM ({_SAID})
    WINDOW
        subject AS (PARTITION BY {_SUBJECT} ORDER BY {ORDER}),
        newest AS (PARTITION BY {_SUBJECT} ORDER BY known_at DESC, received_at DESC, batch DESC, row DESC),
        earlier AS (
            PARTITION BY {_SUBJECT} ORDER BY received_at, batch, row
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        )
"""


@dataclass(frozen=True, kw_only=True)
class OutcomeCounts:
    """How outcomes came; each one that did not begin a subject counts once, and besides as ``late`` if it was.

    Args:
        rows: all that was said.
        subjects: predictions, or entities at a time, that something was said of.
        duplicates: said the same as what was known before.
        corrections: became known later, and say something else.
        contradictions: became known in the same moment, and say something else.
        retractions: take back what was said.
        late: came after something that was known later.
    """

    rows: int = 0
    subjects: int = 0
    duplicates: int = 0
    corrections: int = 0
    contradictions: int = 0
    retractions: int = 0
    late: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return plain values."""
        return asdict(self)


_COUNTS = f"""
    SELECT
        count(*),
        count(*) FILTER (place = 1),
        count(*) FILTER (place > 1 AND repeats),
        count(*) FILTER (place > 1 AND NOT repeats AND NOT at_once AND NOT gone),
        count(*) FILTER (place > 1 AND NOT repeats AND at_once AND NOT gone),
        count(*) FILTER (place > 1 AND NOT repeats AND gone),
        count(*) FILTER (late)
    FROM (SELECT *, label IS NULL AND value IS NULL AS gone FROM ({_JUDGED}))
"""


class OutcomeLog:
    """The outcome log of a project, as it is when it is opened.

    Raises:
        StoreError: a file is missing, cut short or altered.
    """

    def __init__(self, state: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self._files = [str(path) for path in Inventory(state / FOLDER).files()]
        self._connection = connection

    def standing(self, known_by_us: int) -> pa.Table:
        """Return of each subject what holds, retractions included; columns as of the log, in order of the subjects.

        Args:
            known_by_us: what became known later is not looked at.

        Raises:
            StoreError: a file is damaged.
        """
        names = ", ".join(SCHEMA.names)
        query = f"SELECT {names} FROM ({_JUDGED}) WHERE from_end = 1 ORDER BY {_SUBJECT}"
        found = self._run(query, known_by_us)
        return SCHEMA.empty_table() if found is None else found.to_arrow_table().cast(SCHEMA)

    def counts(self, known_by_us: int) -> OutcomeCounts:
        """Return how outcomes came."""
        found = self._run(_COUNTS, known_by_us)
        return OutcomeCounts() if found is None else _counts(found.fetchall()[0])

    def _run(self, query: str, known_by_us: int) -> duckdb.DuckDBPyRelation | None:
        if not self._files:
            return None
        try:
            return self._connection.sql(query, params={"files": self._files, "known_by": known_by_us})
        except duckdb.Error as error:
            raise StoreError("outcome log", f"cannot be read: {error}", fix="restore the damaged file") from error


def _counts(row: tuple[int, ...]) -> OutcomeCounts:
    return OutcomeCounts(**dict(zip(OutcomeCounts.__dataclass_fields__, row, strict=True)))
