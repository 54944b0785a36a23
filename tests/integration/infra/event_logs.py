"""Helpers for the tests of event logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from skewless.infra.log.event_log import EventLog

from tests.worlds.clock import SecondsClock

PARTITION = "events/arrivals/ab12cd/0"


def opened(tmp_path: Path, clock: SecondsClock) -> EventLog:
    return EventLog(tmp_path, PARTITION, clock=clock)


def folder_of(root: Path) -> Path:
    return root / PARTITION


def rows(*values: int) -> pa.Table:
    return pa.table({"x": pa.array(values, pa.int64())})


def fill(log: EventLog, *sizes: int) -> None:
    for size in sizes:
        start = log.next_seq()
        log.append(rows(*range(start, start + size)))


def read(log: EventLog, first: int = 0, last: int | None = None, columns: Sequence[str] | None = None) -> list[Any]:
    return [row for part in log.read(first, last, columns) for row in part.to_pylist()]


def values(log: EventLog) -> list[int]:
    return [row["x"] for row in read(log, columns=["x"])]


def bounds(log: EventLog, first: int = 0, last: int | None = None) -> list[tuple[int, int]]:
    return [(span.first, span.last) for span in log.spans(first, last)]


def names(root: Path, pattern: str = "[!.]*") -> list[str]:
    return sorted(path.name for path in folder_of(root).glob(pattern))


def fill_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")
