"""The objects of logs and packages: none is missing, and each has the written bits."""

from __future__ import annotations

import time
from itertools import accumulate

from skewless.contract.errors import StoreError
from skewless.contract.render import count_text
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.spool import CORRUPT
from skewless.infra.storage.package_folder import PackageFolder
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.checkup.finding import CheckupFinding, doubt, from_error, good

_MB = 1_000_000
_FOLDERS = ("log", "predictions", "outcomes")  # of the objects
_MOST_READ = 1_000_000_000  # bytes of packages
_RECENT_US = 3_600_000_000  # an append that runs now may have stored its object already
_LATER = "do nothing: an append was interrupted, and `skewless housekeeping` deletes its object after a day"


def check_logs(state: ProjectState) -> list[CheckupFinding]:
    """Return a finding for each kind of log; reads all segments."""
    try:
        partitions = Catalog(state.database).partitions()
    except StoreError as error:
        return [from_error("files of logs", error)]
    kinds = {folder: [name for name in partitions if _folder(name) == folder] for folder in _FOLDERS}
    findings = [_judge(state, folder, names) for folder, names in kinds.items() if names]
    corrupt = sorted((state / "spool").glob(f"*/*{CORRUPT}"))
    if corrupt:
        detail = f"{count_text(len(corrupt), 'file')} cannot be read and is not in the log, such as {corrupt[0]}"
        findings.append(doubt("spooled files", detail, "restore or delete them"))
    return findings


def check_package_objects(state: ProjectState) -> list[CheckupFinding]:
    """Return a finding for the packages in a bucket: all objects exist, and the bytes of the latest are unchanged.

    Reads at most a gigabyte, latest versions first. Without a bucket, packages are in the state folder, and their
    hashes are compared whenever they are opened.
    """
    packages, name = PackageFolder.of(state), "files of packages"
    if packages.shared is None:
        return []
    try:
        objects = packages.list_objects()
        sizes = {item.name: item.size for item in state.storage.list_objects("packages")}
        for stored in objects:
            if sizes.get(stored.name) != stored.size:
                state.storage.verify(stored)  # says what is wrong with it
        ends = accumulate(stored.size for stored in objects)
        latest = [stored for stored, end in zip(objects, ends, strict=True) if end <= _MOST_READ]
        for stored in latest:
            state.storage.verify(stored)
    except StoreError as error:
        return [from_error(name, error)]
    total = sum(stored.size for stored in objects) / _MB
    compared = "unchanged"
    if len(latest) < len(objects):
        compared = f"the latest {len(latest):,} unchanged, the others only listed"
    return [good(name, f"{count_text(len(objects), 'file')}, {total:,.1f} MB, {compared}")] if objects else []


def _folder(partition: str) -> str:
    return partition if partition in _FOLDERS else "log"


def _judge(state: ProjectState, folder: str, partitions: list[str]) -> CheckupFinding:
    name, catalog = f"files of {folder}", Catalog(state.database)
    segments = [segment for partition in partitions for segment in catalog.segments(partition)]
    try:
        for segment in segments:
            state.storage.verify(segment.stored)
        orphans = catalog.find_orphans(state.storage, folder, int(time.time() * 1e6) - _RECENT_US)
    except StoreError as error:
        return from_error(name, error)
    size = sum(segment.stored.size for segment in segments)
    detail = f"{count_text(len(segments), 'file')}, {size / _MB:,.1f} MB, unchanged"
    if orphans:
        return doubt(name, f"{detail}; {count_text(len(orphans), 'object')} of no log, such as {orphans[0]}", _LATER)
    return good(name, detail)
