"""The checks of ``skewless doctor --deep`` beyond the usual ones: peers, files, predictions, leases and lags."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from skewless.client import Client, Limits, Retries
from skewless.contract.errors import SkewlessError
from skewless.contract.readable import duration_text
from skewless.contract.render import count_text
from skewless.contract.settings import Settings
from skewless.infra.log.readers import READER
from skewless.infra.platform.host.processes import read_processes
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.objects import STAGING
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.health.checkup.peers import check_database, check_storage
from skewless.operations.health.finding import CheckFinding, bad, doubt, from_error, good

_DAY_S = 86_400.0
_SOON_DAYS = 14.0  # as the alert SkewlessCertificateExpires
_LITTLE_SHARE = 0.1  # as the alert SkewlessDiskFull
_PATIENCE_S = 60.0
_MOST_FILES = 100_000
_MOST_NAMES = 3
_SCHEDULER = "scheduler"
_CHECK_S = 20.0


def check_stores(state: ProjectState, limit_ms: float) -> Iterator[CheckFinding]:
    """Yield version, rights, times and clocks of database and storage; the round trip of the storage leaves no file."""
    if not state.folder.is_dir():
        return  # nothing is applied: the database would be created
    had_staging = (state / STAGING).exists()
    try:
        yield from check_database(state.database, limit_ms)
    except SkewlessError as error:  # of another release, or its package is missing
        yield from_error("database", error)
    try:
        yield from check_storage(state.storage, is_remote=state.storage_url is not None, limit_ms=limit_ms)
    except SkewlessError as error:
        yield from_error("storage", error)
    if not had_staging:
        with suppress(OSError):  # it is missing, or another process has files in it
            (state / STAGING).rmdir()


def check_disk_share(folder: Path) -> CheckFinding:
    """Return whether a tenth of the disk of the state folder is free, the limit of the alert."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    stat = os.statvfs(place)
    share = stat.f_bavail / stat.f_blocks if stat.f_blocks else 1.0
    name, detail = "free disk", f"{share:.0%} of the disk of {folder}"
    if share < _LITTLE_SHARE:
        return doubt(name, detail, "shorten keep_predictions_days, then run `skewless housekeeping`; or add disk")
    return good(name, detail)


def check_files(folder: Path) -> CheckFinding:
    """Return whether this user may read all files of the state folder, and write in all its folders."""
    name = "files"
    if not folder.exists():
        return good(name, "no state folder yet")
    wrong, n = [], 0
    for path, is_folder in islice(_walk(folder), _MOST_FILES):
        n += 1
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK if is_folder else os.R_OK) and path.exists():
            wrong.append(path.relative_to(folder).as_posix())
    if wrong:
        names = ", ".join(wrong[:_MOST_NAMES]) + (", ..." if len(wrong) > _MOST_NAMES else "")
        fix = f"run `chown -R {os.getuid()} {folder}` as root; run all commands as one user"
        return bad(name, f"{count_text(len(wrong), 'file')} of the state folder not accessible: {names}", fix)
    return good(name, f"{count_text(n, 'file')} of the state folder accessible")


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield a folder and what is in it, and whether it is a folder; also a folder that cannot be read."""
    yield folder, True
    for root, folders, files in os.walk(folder):
        yield from ((Path(root, name), True) for name in folders)
        yield from ((Path(root, name), False) for name in files)


def check_certificate(repo: Path, settings: Settings) -> Iterator[CheckFinding]:
    """Yield how many days the certificate of the server is valid, if it has one."""
    if settings.tls_cert is None:
        return
    from skewless.serving.http.tls import certificate_end

    name, end_s = "certificate", certificate_end(repo / settings.tls_cert)
    fix = f"replace {settings.tls_cert} and {settings.tls_key}; the server reads them within a second"
    days = (end_s - time.time()) / _DAY_S
    if not end_s:
        yield bad(name, f"{settings.tls_cert} cannot be read", fix)
    elif days < 0:
        yield bad(name, f"expired {-days:,.0f} days ago", fix)
    elif days < _SOON_DAYS:
        yield doubt(name, f"expires in {days:,.1f} days", fix)
    else:
        yield good(name, f"expires in {days:,.0f} days")


def check_leases(state: ProjectState) -> Iterator[CheckFinding]:
    """Yield who holds leases, and whether a scheduler leads."""
    try:
        if not state.database.exists():
            return
        leases, now_us = Leases(state.database), state.database.now_us()
        rows = state.database.query("SELECT name, holder, until_us FROM leases ORDER BY name")
        held = {
            name: holder
            for name, holder, until_us in rows
            if until_us > now_us and not name.startswith(READER) and leases.read_holder(name)
        }
        schedulers = [item for item in read_processes(state) if item.kind == _SCHEDULER]
        living = [item for item in schedulers if not item.is_silent(now_us / 1e6)]
    except SkewlessError as error:
        yield from_error("leases", error)
        return
    holders = [f"{name}: {_place(holder)}" for name, holder in held.items()]
    yield good("leases", "; ".join(holders) or "none is held")
    if _SCHEDULER in held:
        yield good(_SCHEDULER, f"{_place(held[_SCHEDULER])} leads, of {count_text(len(living), 'scheduler')}")
    elif any(name == _SCHEDULER for name, _, _ in rows):
        detail, fix = (
            f"none leads, {count_text(len(living), 'scheduler')} alive: no job runs",
            "start `skewless scheduler`",
        )
        # One that has ended cleanly left no record: perhaps cron starts the jobs.
        judge = bad if schedulers else doubt
        yield judge(_SCHEDULER, detail, fix, section="schedulerwithoutleader")


def _place(holder: str) -> str:
    """Return host and pid of a holder.

    >>> _place("web1/boot-1/77/ab12")
    'web1 77'
    """
    parts = holder.split("/")
    return f"{parts[0]} {parts[2]}" if len(parts) > 2 else holder  # noqa: PLR2004 - see new_holder


def check_spool(state: ProjectState) -> CheckFinding:
    """Return whether predictions and outcomes wait on this machine for the log."""
    name, times = "log lag", []
    for path in (state / "spool").glob("*/*.parquet"):
        with suppress(FileNotFoundError):  # it was shipped
            times.append(path.stat().st_mtime)
    if not times:
        return good(name, "no file waits on this machine")
    age_s = max(0.0, time.time() - min(times))
    detail = f"{count_text(len(times), 'file')} not in the log yet, the oldest for {duration_text(age_s)}"
    if age_s > _PATIENCE_S:
        return doubt(name, detail, "bring database and storage back; do not delete the state folder")
    return good(name, detail)


def check_predictions(url: str) -> Iterator[CheckFinding]:
    """Yield for each served model a synthetic prediction; ``SKEWLESS_API_KEY`` has the key, if one is required."""
    limits = Limits(connect_s=2.0, attempt_s=_CHECK_S, total_s=_CHECK_S)
    with Client(url, limits=limits, retries=Retries(attempts=1)) as client:
        try:
            models = client.models()
        except SkewlessError as error:
            if error.thing.startswith("API key"):
                fix = "set SKEWLESS_API_KEY to a key of the project; any scope is enough"
                yield doubt("predictions", f"the server requires an API key: it {error.problem}", fix)
            else:
                yield from_error("predictions", error)
            return
        for thing, why in models.refused.items():
            yield bad("predictions", f"{thing} is not served: {why}", "read the log of the server: model_refused")
        for model in models:
            yield _check_model(client, model.name)


def _check_model(client: Client, name: str) -> CheckFinding:
    label, started = f"prediction {name}", time.perf_counter()
    try:
        reply = client.check(name)
    except SkewlessError as error:
        return from_error(label, error)
    total_ms = (time.perf_counter() - started) * 1e3
    kind = "bit equal" if reply["bit_equal"] else f"within its tolerance ({reply['largest_difference']:.3g})"
    detail = f"{reply['version']}: {reply['rows']} reference rows {kind}, {total_ms:.0f} ms, "
    detail += f"read of the store {reply['read_ms']:.1f} ms"
    if views := reply["incomplete_views"]:
        fix = "run `skewless materialize`; for windowed views `skewless stream`"
        return doubt(label, f"{detail}; UNAVAILABLE: {', '.join(views)}", fix)
    return good(label, detail)
