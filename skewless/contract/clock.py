"""Clocks: the only place that reads the time, so that a test or a demo can set it."""

from __future__ import annotations

import mmap
import os
import struct
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, Self

from skewless.contract.errors import DefinitionError, PlaceError

_OFFSET = struct.Struct("<q")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CREATE = "correct the setting `clock`, whose path is relative to the project, or create it as docs/settings.md shows"


class Clock(Protocol):
    """Returns the time as int64 microseconds since the epoch, UTC; it never goes back unless it is set."""

    def now_us(self) -> int:
        """Return the current time, UTC microseconds."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_us(self) -> int:
        """Return the current time, UTC microseconds."""
        return time.time_ns() // 1_000


class ManualClock:
    """A clock for tests that stops until it is set.

    >>> clock = ManualClock(5)
    >>> clock.set(7)
    >>> clock.now_us()
    7
    """

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        """Return the time that was set last, UTC microseconds."""
        return self._now_us

    def set(self, now_us: int) -> None:
        """Set the clock, UTC microseconds."""
        self._now_us = now_us


class OffsetClock:
    """The machine's clock plus an offset in a file, so that several processes share a time that was set.

    It ticks like the machine's clock. The file is one int64 in the machine's byte order, in microseconds.

    Raises:
        PlaceError: the file is missing, or is not a clock file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        thing, fix = f"clock file {path}", "restore its rights and its 8 bytes"
        try:
            with path.open("r+b") as file:
                size = os.fstat(file.fileno()).st_size
                if size != _OFFSET.size:
                    raise PlaceError(thing, "does not have 8 bytes", value=size, fix=fix)
                # A memoryview copies 8 bytes at once; `struct` copies byte by byte: others could see half a value.
                self._offset = memoryview(mmap.mmap(file.fileno(), _OFFSET.size)).cast("q")
            # Fails here, not in the first request, if the offset is beyond the years of a datetime.
            from_us(self.now_us())
        except FileNotFoundError as error:
            raise PlaceError(thing, "is missing", fix=_CREATE) from error
        except OverflowError as error:
            raise PlaceError(thing, "has an offset beyond the years 1 to 9999", fix=fix) from error
        except (OSError, ValueError) as error:
            raise PlaceError(thing, f"cannot be used: {error}", fix=fix) from error

    @classmethod
    def create(cls, path: Path) -> Self:
        """Return the clock of a file; create the file with offset 0 if it is missing."""
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Linked when it is complete: another process may open the file as soon as it exists.
            complete = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
            complete.write_bytes(_OFFSET.pack(0))
            with suppress(FileExistsError):
                path.hardlink_to(complete)
            complete.unlink()
        return cls(path)

    def now_us(self) -> int:
        """Return the current time plus the offset, UTC microseconds."""
        return time.time_ns() // 1_000 + self._offset[0]

    def __reduce__(self) -> tuple[type[OffsetClock], tuple[Path]]:
        # A memoryview cannot be pickled; the path is enough to open the file again.
        return OffsetClock, (self._path,)

    def set(self, now_us: int) -> None:
        """Set the clock, UTC microseconds, for every process that reads the file."""
        self._offset[0] = now_us - time.time_ns() // 1_000


def open_clock(setting: str) -> Clock:
    """Return the clock of the setting ``clock``: ``system``, or ``file:PATH`` with an absolute path.

    Raises:
        DefinitionError: the setting is neither.
        PlaceError: its file is missing.
    """
    if setting.startswith("file:"):
        return OffsetClock(Path(setting.removeprefix("file:")))
    if setting != "system":
        raise DefinitionError("setting 'clock'", "is not a clock", value=setting, fix="use 'system' or 'file:PATH'")
    return SystemClock()


def parse_time(text: str) -> tuple[int, bool] | None:
    """Return the microseconds since the epoch of an ISO 8601 text, and whether it has a zone; None: not a time.

    A time without a zone is read as UTC (SEMANTICS 1.1); a caller may reject it.

    >>> parse_time("1970-01-01T01:00:01+01:00"), parse_time("1970-01-02"), parse_time("soon")
    ((1000000, True), (86400000000, False), None)
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return to_us(parsed), parsed.tzinfo is not None


def to_us(value: datetime) -> int:
    """Return a datetime as microseconds since the epoch; a naive datetime is UTC (SEMANTICS 1.1).

    >>> to_us(datetime(1970, 1, 1, 0, 0, 1))
    1000000
    """
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def from_us(time_us: int) -> datetime:
    """Return microseconds since the epoch as an aware datetime in UTC.

    >>> from_us(1_000_000).isoformat()
    '1970-01-01T00:00:01+00:00'
    """
    return _EPOCH + timedelta(microseconds=time_us)
