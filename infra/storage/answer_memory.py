"""Answers of a database that is down: a prediction server starts and serves without it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from skewless.contract.errors import StoreError
from skewless.infra.storage.database import Row
from skewless.infra.storage.sqlite_database import SqliteDatabase
from skewless.infra.telemetry.logger import EventLogger

_RETRY_S = 1.0
_MOST_ANSWERS = 10_000
_STEPS = (("CREATE TABLE answers (question TEXT PRIMARY KEY, answer TEXT NOT NULL)",),)
_log = EventLogger()


class AnswerMemory:
    """The last rows of each read, in memory and in a local file, so that they survive a restart.

    After a failure, reads do not wait for the database again for a second: a request of the server's reload would
    otherwise take as long as the timeout of a connection.

    Args:
        path: of the file; created at the first answer.
        monotonic: returns the seconds of a clock that never jumps.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._file = SqliteDatabase(path, _STEPS)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._answers: dict[str, list[Row]] | None = None
        self._away_until: float | None = None
        self._away_since = 0.0

    def away_s(self) -> float | None:
        """Return the seconds since the first read that failed; None: the last read succeeded."""
        return None if self._away_until is None else self._monotonic() - self._away_since

    def read(self, question: str, ask: Callable[[], list[Row]]) -> list[Row]:
        """Return the rows of the database, or those of the same read before if it is down.

        Raises:
            StoreError: the database is down, and this was never read before.
        """
        if self._away_until is not None and self._monotonic() < self._away_until:
            return self._recall(question, StoreError("database", "is down", fix="start it, or correct database_url"))
        try:
            rows = ask()
        except StoreError as error:
            return self._recall(question, error)
        if self._away_until is not None:
            self._away_until = None
            _log.info("database_up")
        self._remember(question, rows)
        return rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _recall(self, question: str, error: StoreError) -> list[Row]:
        with self._lock:
            if self._away_until is None:
                self._away_since = self._monotonic()
                _log.warning("database_down", error=str(error))
            if self._away_until is None or self._monotonic() >= self._away_until:
                self._away_until = self._monotonic() + _RETRY_S
            rows = self._load().get(question)
        if rows is None:
            raise error
        return rows

    def _remember(self, question: str, rows: list[Row]) -> None:
        with self._lock:
            answers = self._load()
            is_same = answers.pop(question, None) == rows
            answers[question] = rows  # at the end, so that the first question is the least recently read
            oldest = next(iter(answers)) if len(answers) > _MOST_ANSWERS else None
            if oldest is not None:
                del answers[oldest]
        if is_same:
            return
        # Losing an answer on a full disk costs nothing while the database is there.
        with suppress(StoreError):
            if oldest is not None:
                self._file.execute("DELETE FROM answers WHERE question = ?", oldest)
            self._file.execute(
                "INSERT INTO answers VALUES (?, ?) ON CONFLICT (question) DO UPDATE SET answer = excluded.answer",
                question,
                json.dumps(rows),
            )

    def _load(self) -> dict[str, list[Row]]:
        if self._answers is None:
            self._answers = {}
            with suppress(StoreError, ValueError):
                for question, answer in self._file.query("SELECT question, answer FROM answers LIMIT ?", _MOST_ANSWERS):
                    self._answers[question] = [tuple(row) for row in json.loads(answer)]
        return self._answers
