"""Compaction of an event log: merges small files into large ones, and removes the merged files later.

Durable steps in this order keep the log complete at every point: the merged file, the manifest that lists it, the
shorter ends file, and after the grace time the removal of the merged files.
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
from skewless.infra.log.ends import KNOWN_AT, EndsFile, add_known_at, ends_table, resolve_overlaps, select_uncompacted
from skewless.infra.log.inventory import add_to_inventory, missing_file_error
from skewless.infra.log.log_files import LogFiles
from skewless.infra.log.manifest import FileRange, Gap, Manifest, MergedRange, compacted_path, join_gaps
from skewless.infra.log.reading import GROUP_ROWS, read_tables, regroup
from skewless.infra.storage.durable import disk_error, sync_file, sync_folder, try_lock

# An older file is merged again with newer rows only if it is not much larger than they are. So the number of times that
# a row is written grows with the logarithm of the file size.
_SIZE_FACTOR = 3
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")
_FILE = re.compile(r"c?(?P<first>\d{20})(-(?P<last>\d{20}))?\.parquet")


@dataclass(frozen=True, kw_only=True)
class CompactReport:
    """The result of a compaction.

    Args:
        merged: number of replaced files.
        written: number of new files.
        rows: number of rows in the new files.
        is_busy: another process was compacting, so nothing was done.
    """

    merged: int = 0
    written: int = 0
    rows: int = 0
    is_busy: bool = False


class Compactor:
    """Merges the files of one log and removes merged ones."""

    def __init__(
        self, folder: Path, files: LogFiles, ends: EndsFile, clock: Callable[[], float], grace_s: float
    ) -> None:
        self._folder = folder
        self._files = files
        self._ends = ends
        self._clock = clock
        self._grace_us = int(grace_s * 1e6)

    def compact(self, *, keep: int, target_rows: int) -> CompactReport:
        """Merge the files that are due; see ``EventLog.compact``."""
        with try_lock(self._folder) as is_locked:
            if not is_locked:
                return CompactReport(is_busy=True)
            done = self._merge_all(keep, target_rows)
            self._drop_ends()
        return CompactReport(
            merged=sum(map(len, done)), written=len(done), rows=sum(span.rows for group in done for span in group)
        )

    def sweep(self) -> None:
        """Remove the files that are due; see ``EventLog.sweep``."""
        with try_lock(self._folder) as is_locked:
            if is_locked:
                self._remove_due()

    def _merge_all(self, keep: int, target_rows: int) -> list[Sequence[FileRange]]:
        manifest = self._files.follow()
        batches = self._files.batches
        groups = plan_merges(manifest.spans, batches[: max(len(batches) - keep, 0)], target_rows)
        done = []
        for group in groups:
            new_manifest = self._merge(manifest, group)
            if new_manifest is None:
                break
            manifest = new_manifest
            done.append(group)
        return done

    def _merge(self, manifest: Manifest, group: Sequence[FileRange]) -> Manifest | None:
        first, last = group[0].first, group[-1].last
        span = FileRange(path=compacted_path(self._folder, first, last), first=first, last=last)
        self._files.inventory.verify_all(each.path for each in group)
        gaps = self._write(group, span.path)
        add_to_inventory(self._files.inventory, span.path, span.rows)
        new = _replace_spans(manifest, span, gaps, self._now_us())
        return new if self._files.manifest.replace(manifest, new) else None

    def _write(self, group: Sequence[FileRange], path: Path) -> list[Gap]:
        temporary = self._folder / f".{uuid.uuid4().hex}.tmp"
        try:
            gaps = self._copy(group, temporary)
            sync_file(temporary)
            temporary.replace(path)
            sync_folder(self._folder)
        except FileNotFoundError as error:
            raise missing_file_error(Path(error.filename or path)) from error
        except OSError as error:
            raise disk_error(path, error) from error
        finally:
            temporary.unlink(missing_ok=True)
        return gaps

    def _copy(self, group: Sequence[FileRange], path: Path) -> list[Gap]:
        ends = ends_table(resolve_overlaps(self._ends.read()))
        schema = self._files.schema().append(pa.field(KNOWN_AT, pa.int64()))
        text = [field.name for field in schema if not pa.types.is_primitive(field.type)]
        gaps: list[Gap] = []
        with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=text) as writer:
            parts = chain.from_iterable(read_tables(span, span.first, span.last, schema) for span in group)
            for rows in regroup(parts):
                known = add_known_at(rows, ends)
                gaps.extend(_find_gaps(known))
                writer.write_table(known, row_group_size=GROUP_ROWS)
        return gaps

    def _drop_ends(self) -> None:
        manifest = self._files.manifest.read()
        if manifest.spans:
            self._ends.filter_records(lambda records: select_uncompacted(records, manifest))

    def _remove_due(self) -> None:
        manifest = self._files.manifest.read()
        try:
            # A file may be removed only after the manifest that replaced it is durable.
            sync_folder(self._folder)
            listed_paths = {span.path for span in manifest.spans}
            removable_paths = [
                path for path in sorted(set(self._folder.iterdir()) - listed_paths) if self._is_due(path, manifest)
            ]
            self._files.inventory.remove_entries(path.name for path in removable_paths)
            for path in removable_paths:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(self._folder, error) from error
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
            # A batch file after the end stays. A merged file that no manifest lists is left by a killed compaction.
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
    """Return groups of adjacent files, each to be merged into one file, oldest first.

    Args:
        compacted: merged files; the last ones may be merged again.
        batches: the batch files after them to be merged.
        target_rows: maximum number of rows in a merged file, unless one batch has more.

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
    # Adds earlier merged files while they are not much larger than the new rows.
    while start and compacted[start - 1].rows <= min(_SIZE_FACTOR * rows, target_rows // 2):
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


def _replace_spans(manifest: Manifest, span: FileRange, gaps: Sequence[Gap], now_us: int) -> Manifest:
    spans_before = [old for old in manifest.spans if old.last < span.first]
    spans_after = [old for old in manifest.spans if old.first > span.last]
    earlier_gaps = [gap for gap in manifest.gaps if gap.first < span.first]
    # A gap may extend from an older file into the files that are merged now.
    gaps_before = [Gap(first=gap.first, last=min(gap.last, span.first - 1)) for gap in earlier_gaps]
    gaps_after = [
        Gap(first=max(gap.first, span.last + 1), last=gap.last) for gap in manifest.gaps if gap.last > span.last
    ]
    return Manifest(
        generation=manifest.generation + 1,
        spans=(*spans_before, span, *spans_after),
        gaps=join_gaps([*gaps_before, *gaps, *gaps_after]),
        retired=(*manifest.retired, MergedRange(first=span.first, last=span.last, at_us=now_us)),
    )


def _find_gaps(rows: pa.Table) -> Iterator[Gap]:
    seq = rows.filter(rows[KNOWN_AT].is_null())[SEQ].to_numpy()
    cuts = np.flatnonzero(np.diff(seq) != 1)
    if len(seq):
        for first, last in zip(seq[[0, *(cuts + 1)]].tolist(), seq[[*cuts, -1]].tolist(), strict=True):
            yield Gap(first=first, last=last)
