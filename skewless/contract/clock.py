"""Clocks: the one place where time is read, so that a test or a demo can move it."""

from __future__ import annotations

import mmap
import os
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, Self

from skewless.contract.errors import DefinitionError, PlaceError

_OFFSET = struct.Struct("<q")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CREATE = "correct the setting `clock`, whose path is relative to the project, or create it as docs/settings.md shows"


class Clock(Protocol):
    """Tells the time as int64 microseconds since the epoch, UTC; never goes back by itself."""

    def now_us(self) -> int:
        """Return the present moment."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_us(self) -> int:
        """Return the present moment."""
        return time.time_ns() // 1_000


class ManualClock:
    """A clock for tests that stands still until it is moved.

    >>> clock = ManualClock(5)
    >>> clock.set(7)
    >>> clock.now_us()
    7
    """

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        """Return the moment that was last set."""
        return self._now_us

    def set(self, now_us: int) -> None:
        """Move the clock."""
        self._now_us = now_us


class OffsetClock:
    """The machine's clock plus an offset kept in a file, so that processes share a moved time.

    It ticks like the machine's clock. The file is one int64 in the machine's byte order, in microseconds.

    Raises:
        PlaceError: there is no such file, or it is not a clock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        thing, fix = f"clock file {path}", "restore its rights and its 8 bytes"
        try:
            with path.open("r+b") as file:
                size = os.fstat(file.fileno()).st_size
                if size != _OFFSET.size:
                    raise PlaceError(thing, "does not have 8 bytes", value=size, fix=fix)
                # Read and written whole: `struct` goes byte by byte, and others would see half of a move.
                self._offset = memoryview(mmap.mmap(file.fileno(), _OFFSET.size)).cast("q")
            from_us(self.now_us())
        except FileNotFoundError as error:
            raise PlaceError(thing, "is missing", fix=_CREATE) from error
        except OverflowError as error:
            raise PlaceError(thing, "holds a time that is not in any calendar", fix=fix) from error
        except (OSError, ValueError) as error:
            raise PlaceError(thing, f"cannot be used: {error}", fix=fix) from error

    @classmethod
    def create(cls, path: Path) -> Self:
        """Return the clock of a file, which is made, with the machine's time, where it is missing."""
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(_OFFSET.pack(0))
        return cls(path)

    def now_us(self) -> int:
        """Return the present moment, moved by the offset."""
        return time.time_ns() // 1_000 + self._offset[0]

    def __reduce__(self) -> tuple[type[OffsetClock], tuple[Path]]:
        return OffsetClock, (self._path,)

    def set(self, now_us: int) -> None:
        """Move the clock to a moment, for every process that reads the file."""
        self._offset[0] = now_us - time.time_ns() // 1_000


def open_clock(setting: str) -> Clock:
    """Return the clock that a setting names: ``system``, or ``file:PATH`` with the full path of ``load_settings``.

    Raises:
        DefinitionError: it names no clock.
        PlaceError: its file is missing.
    """
    if setting.startswith("file:"):
        return OffsetClock(Path(setting.removeprefix("file:")))
    if setting != "system":
        raise DefinitionError("setting 'clock'", "names no clock", value=setting, fix="use 'system' or 'file:PATH'")
    return SystemClock()


def parse_time(text: str) -> tuple[int, bool] | None:
    """Return the microseconds since the epoch of an ISO 8601 text, and whether it names its zone; None: it is no time.

    Without a zone it is UTC (SEMANTICS 1.1); who takes times from outside may refuse such a one.

    >>> parse_time("1970-01-01T01:00:01+01:00"), parse_time("1970-01-02"), parse_time("soon")
    ((1000000, True), (86400000000, False), None)
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return to_us(moment), moment.tzinfo is not None


def to_us(moment: datetime) -> int:
    """Return a moment as microseconds since the epoch; a naive one is UTC (SEMANTICS 1.1).

    >>> to_us(datetime(1970, 1, 1, 0, 0, 1))
    1000000
    """
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def from_us(moment_us: int) -> datetime:
    """Return microseconds since the epoch as an aware datetime in UTC.

    >>> from_us(1_000_000).isoformat()
    '1970-01-01T00:00:01+00:00'
    """
    return _EPOCH + timedelta(microseconds=moment_us)
