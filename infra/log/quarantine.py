"""The batches that a gate has rejected, in the state folder of this machine: ``quarantine/VIEW/HASH.parquet``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import StoreError
from skewless.contract.plain_record import PlainRecord
from skewless.contract.render import shorten
from skewless.infra.log.log_columns import REJECT
from skewless.infra.platform.storage.durable import translate_disk_errors
from skewless.infra.platform.storage.project_state import ProjectState

_REJECTION = b"skewless.rejection"
_FOLDER = "quarantine"
_MOST_REASONS = 20
_LONGEST = 1_000  # characters of an expectation
_BATCH_ROWS, _MOST_READ = 2_000, 100_000


def describe_rejection(reasons: Mapping[int, str], failed: Sequence[str]) -> dict[bytes, bytes]:
    """Return the metadata of a rejected batch; equal batches have equal metadata.

    Args:
        reasons: why rows were rejected, by position.
        failed: the expectations that failed.
    """
    common = sorted(Counter(reasons.values()).items(), key=lambda item: (-item[1], item[0]))[:_MOST_REASONS]
    body = {
        "failed": [shorten(text, _LONGEST) for text in failed[:_MOST_REASONS]],
        "reasons": {shorten(reason, _LONGEST): rows for reason, rows in common},
        "bad_rows": len(reasons),
    }
    return {_REJECTION: json.dumps(body).encode()}


@dataclass(frozen=True, kw_only=True)
class RejectedBatch(PlainRecord):
    """A batch that the gate of a view has rejected as a whole.

    Args:
        view: name of the view.
        batch: name of its file, without the ending.
        rejected_us: when it was last rejected, by the disk's clock, UTC microseconds.
        rows: all rows of the batch.
        bad_rows: rows that violate an expectation about single rows; None: the file cannot be read.
        failed: the expectations that failed, or why the file cannot be read.
        reasons: number of bad rows by reason; the 20 most frequent.
    """

    view: str
    batch: str
    rejected_us: int
    rows: int
    bad_rows: int | None
    failed: list[str]
    reasons: dict[str, int]


def list_rejected(state: ProjectState, *, most: int) -> tuple[list[RejectedBatch], int]:
    """Return the batches that were rejected last on this machine, latest first, and the number of all batches.

    Reads the footers of at most ``most`` files.

    Raises:
        StoreError: the disk refused it.
    """
    with translate_disk_errors(state / _FOLDER):
        times = {path: path.stat().st_mtime_ns // 1_000 for path in (state / _FOLDER).glob("*/*.parquet")}
    latest = sorted(times, key=lambda path: (-times[path], path))
    batches = [_describe(path, times[path]) for path in latest[:most]]
    return batches, len(latest)


def read_bad_rows(state: ProjectState, view: str, batch: str, *, most: int) -> list[dict[str, Any]]:
    """Return rows of a rejected batch with a reason in ``__reject``, or its first rows if none has a reason.

    Args:
        view, batch: as ``list_rejected`` returned them.
        most: number of rows. At most 100,000 rows are read.

    Raises:
        StoreError: the file is missing or corrupt.
    """
    path = state / _FOLDER / view / f"{batch}.parquet"
    rows: list[dict[str, Any]] = []
    try:
        with pq.ParquetFile(path) as file:
            described = _rejection(file.schema_arrow)
            has_bad_rows = described is None or bool(described["bad_rows"])
            for part in _first_batches(file):
                table = pa.Table.from_batches([part])
                rows += (table.filter(table[REJECT].is_valid()) if has_bad_rows else table).slice(0, most).to_pylist()
                if len(rows) >= most:
                    break
    except (OSError, pa.ArrowException) as error:
        fix = "delete the file: the next run of `skewless materialize` writes the batch again"
        raise StoreError(f"rejected batch {batch!r}", f"cannot be read: {error}", fix=fix) from error
    return rows[:most]


def _first_batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    read = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS):
        yield batch
        read += batch.num_rows
        if read >= _MOST_READ:
            return


def _describe(path: Path, rejected_us: int) -> RejectedBatch:
    rows, described = 0, None
    try:
        with pq.ParquetFile(path) as file:
            rows, described = file.metadata.num_rows, _rejection(file.schema_arrow)
    except (OSError, pa.ArrowException) as error:
        described = {"failed": [f"the file cannot be read: {shorten(str(error))}"]}
    described = described or {}
    return RejectedBatch(
        view=path.parent.name,
        batch=path.stem,
        rejected_us=rejected_us,
        rows=rows,
        bad_rows=described.get("bad_rows"),
        failed=described.get("failed", []),
        reasons=described.get("reasons", {}),
    )


def _rejection(schema: pa.Schema) -> dict[str, Any] | None:
    try:
        body = json.loads((schema.metadata or {}).get(_REJECTION, b"null"))
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
