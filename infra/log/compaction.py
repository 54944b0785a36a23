"""Housekeeping of an event log: many small files become few big ones, and what they replace is removed later.

The order of the durable steps is what keeps the log whole: the merged file, then the manifest that lists it, then the
shorter list of ends, and after the grace time the files that were merged.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.infra.log.accepted import SEQ
from skewless.infra.log.ends import KNOWN_AT, EndsFile, as_table, first_cover, unbaked, with_known_at
from skewless.infra.log.inventory import missing, noted
from skewless.infra.log.log_files import LogFiles
from skewless.infra.log.manifest import FileRange, Gap, Manifest, MergedRange, compacted_path, joined
from skewless.infra.log.reading import GROUP_ROWS, regrouped, tables
from skewless.infra.storage.durable import alone, refused, sync_file, sync_folder

# An older file is merged again with newer rows only if it is not many times bigger than they are, so that each row
# is written a number of times that grows with the logarithm of the file size.
_BIGGER = 3
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")
_FILE = re.compile(r"c?(?P<first>\d{20})(-(?P<last>\d{20}))?\.parquet")


@dataclass(frozen=True, kw_only=True)
class CompactReport:
    """What a compaction has done.

    Args:
        merged: how many files it replaced.
        written: how many files stand in their place.
        rows: how many rows those have.
        is_busy: whether another process was compacting, so that nothing was done.
    """

    merged: int = 0
    written: int = 0
    rows: int = 0
    is_busy: bool = False


class Compactor:
    """Merges and removes the files of one log."""

    def __init__(
        self, folder: Path, files: LogFiles, ends: EndsFile, clock: Callable[[], float], grace_s: float
    ) -> None:
        self._folder = folder
        self._files = files
        self._ends = ends
        self._clock = clock
        self._grace_us = int(grace_s * 1e6)

    def compact(self, *, keep: int, target_rows: int) -> CompactReport:
        """Merge what is due; see ``EventLog.compact``."""
        with alone(self._folder) as is_alone:
            if not is_alone:
                return CompactReport(is_busy=True)
            done = self._merge_all(keep, target_rows)
            self._drop_ends()
        return CompactReport(
            merged=sum(map(len, done)), written=len(done), rows=sum(span.rows for group in done for span in group)
        )

    def sweep(self) -> None:
        """Remove what is due; see ``EventLog.sweep``."""
        with alone(self._folder) as is_alone:
            if is_alone:
                self._remove_due()

    def _merge_all(self, keep: int, target_rows: int) -> list[Sequence[FileRange]]:
        manifest = self._files.follow()
        batches = self._files.batches
        groups = plan_merges(manifest.spans, batches[: max(len(batches) - keep, 0)], target_rows)
        done = []
        for group in groups:
            merged = self._merge(manifest, group)
            if merged is None:
                break
            manifest = merged
            done.append(group)
        return done

    def _merge(self, manifest: Manifest, group: Sequence[FileRange]) -> Manifest | None:
        first, last = group[0].first, group[-1].last
        span = FileRange(path=compacted_path(self._folder, first, last), first=first, last=last)
        self._files.inventory.compare_all(each.path for each in group)
        gaps = self._write(group, span.path)
        noted(self._files.inventory, span.path, span.rows)
        new = _merged(manifest, span, gaps, self._now_us())
        return new if self._files.manifest.replace(manifest, new) else None

    def _write(self, group: Sequence[FileRange], path: Path) -> list[Gap]:
        temporary = self._folder / f".{uuid.uuid4().hex}.tmp"
        try:
            gaps = self._copy(group, temporary)
            sync_file(temporary)
            temporary.replace(path)
            sync_folder(self._folder)
        except FileNotFoundError as error:
            raise missing(Path(error.filename or path)) from error
        except OSError as error:
            raise refused(path, error) from error
        finally:
            temporary.unlink(missing_ok=True)
        return gaps

    def _copy(self, group: Sequence[FileRange], path: Path) -> list[Gap]:
        ends = as_table(first_cover(self._ends.read()))
        schema = self._files.schema().append(pa.field(KNOWN_AT, pa.int64()))
        text = [field.name for field in schema if not pa.types.is_primitive(field.type)]
        gaps: list[Gap] = []
        with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=text) as writer:
            parts = chain.from_iterable(tables(span, span.first, span.last, schema) for span in group)
            for rows in regrouped(parts):
                known = with_known_at(rows, ends)
                gaps.extend(_unknown(known))
                writer.write_table(known, row_group_size=GROUP_ROWS)
        return gaps

    def _drop_ends(self) -> None:
        manifest = self._files.manifest.read()
        if manifest.spans:
            self._ends.keep(lambda records: unbaked(records, manifest))

    def _remove_due(self) -> None:
        manifest = self._files.manifest.read()
        try:
            # A file may only go when the manifest that replaced it is durable.
            sync_folder(self._folder)
            listed = {span.path for span in manifest.spans}
            due = [path for path in sorted(set(self._folder.iterdir()) - listed) if self._is_due(path, manifest)]
            self._files.inventory.drop(path.name for path in due)
            for path in due:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise refused(self._folder, error) from error
        waiting = tuple(item for item in manifest.retired if item.at_us > self._now_us() - self._grace_us)
        if waiting != manifest.retired:
            new = replace(manifest, generation=manifest.generation + 1, retired=waiting)
            self._files.manifest.replace(manifest, new)

    def _is_due(self, path: Path, manifest: Manifest) -> bool:
        if _TEMPORARY.fullmatch(path.name):
            return self._is_old(path)
        name = _FILE.fullmatch(path.name)
        if name is None:
            return False
        first = int(name["first"])
        if first > manifest.end:
            # A batch is there to stay; a merged file that no manifest lists is what a killed compaction left.
            return name["last"] is not None and self._is_old(path)
        since = self._now_us() - self._grace_us
        return not any(item.first <= first <= item.last and item.at_us > since for item in manifest.retired)

    def _is_old(self, path: Path) -> bool:
        try:
            return path.stat().st_mtime_ns // 1_000 <= self._now_us() - self._grace_us
        except FileNotFoundError:
            return False

    def _now_us(self) -> int:
        return int(self._clock() * 1e6)


def plan_merges(
    compacted: Sequence[FileRange], batches: Sequence[FileRange], target_rows: int
) -> list[Sequence[FileRange]]:
    """Return the runs of neighbouring files that are to become one file each, oldest first.

    Args:
        compacted: files that were merged before; the last ones may be merged again.
        batches: the files behind them that are to be merged.
        target_rows: how many rows a merged file has at most, unless one batch has more.

    >>> def spans(*sizes: int, at: int = 0) -> list[FileRange]:
    ...     ends = [at + sum(sizes[: i + 1]) for i in range(len(sizes))]
    ...     return [FileRange(path=Path(), first=end - size, last=end - 1) for end, size in zip(ends, sizes)]
    >>> [sum(span.rows for span in run) for run in plan_merges(spans(50, 9), spans(2, 2, 2, at=59), 10)]
    [6]
    >>> [sum(span.rows for span in run) for run in plan_merges(spans(50, 4), spans(2, 2, 4, at=54), 10)]
    [8, 4]
    """
    if not batches:
        return []
    rows = sum(span.rows for span in batches)
    start = len(compacted)
    while start and compacted[start - 1].rows <= min(_BIGGER * rows, target_rows // 2):
        start -= 1
        rows += compacted[start].rows
    groups: list[list[FileRange]] = []
    size = target_rows
    for span in [*compacted[start:], *batches]:
        if size + span.rows > target_rows:
            groups.append([])
            size = 0
        groups[-1].append(span)
        size += span.rows
    known = set(compacted)
    return [group for group in groups if len(group) > 1 or group[0] not in known]


def _merged(manifest: Manifest, span: FileRange, gaps: Sequence[Gap], now_us: int) -> Manifest:
    before = [old for old in manifest.spans if old.last < span.first]
    after = [old for old in manifest.spans if old.first > span.last]
    kept = [gap for gap in manifest.gaps if gap.first < span.first]
    # A gap may reach from an older file into those that are merged now.
    left = [Gap(first=gap.first, last=min(gap.last, span.first - 1)) for gap in kept]
    right = [Gap(first=max(gap.first, span.last + 1), last=gap.last) for gap in manifest.gaps if gap.last > span.last]
    return Manifest(
        generation=manifest.generation + 1,
        spans=(*before, span, *after),
        gaps=joined([*left, *gaps, *right]),
        retired=(*manifest.retired, MergedRange(first=span.first, last=span.last, at_us=now_us)),
    )


def _unknown(rows: pa.Table) -> Iterator[Gap]:
    seq = rows.filter(rows[KNOWN_AT].is_null())[SEQ].to_numpy()
    cuts = np.flatnonzero(np.diff(seq) != 1)
    if len(seq):
        for first, last in zip(seq[[0, *(cuts + 1)]].tolist(), seq[[*cuts, -1]].tolist(), strict=True):
            yield Gap(first=first, last=last)
