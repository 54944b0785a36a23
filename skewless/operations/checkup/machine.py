"""The machine: memory, port and disk; and the state folder: its permissions, and the trust in its packages."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from skewless.contract.settings import Settings
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.checkup.finding import CheckupFinding, bad, doubt, good

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(|[kmgt]i?)(?:b|bytes)?", re.IGNORECASE)
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) *%")
_CGROUP = Path("/sys/fs/cgroup/memory.max")
_MOST_OF_MEMORY = 0.75
_LITTLE_DISK, _NO_DISK = 5 * 2**30, 2**28
_GIB = 2**30
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_memory(limit: str, machine_bytes: int) -> CheckupFinding:
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


def check_port(host: str, port: int, own_url: str | None) -> CheckupFinding:
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


def check_disk(state: Path) -> CheckupFinding:
    """Return whether the state folder is writable, with hard links and free space; leaves no files."""
    folder = next(path for path in (state, *state.parents) if path.exists())
    name = f"folder {state}"
    try:
        _try_links(folder)
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


def _try_links(parent: Path) -> None:
    # The log names its files by hard links.
    with tempfile.TemporaryDirectory(prefix=".skewless-doctor-", dir=parent) as folder:
        first = Path(folder, "a")
        first.write_bytes(b"x")
        os.link(first, Path(folder, "b"))


def check_trust(state: ProjectState, settings: Settings) -> Iterator[CheckupFinding]:
    """Yield whether other users can read or change the state, and whether unsigned packages are loaded."""
    if state.folder.is_dir():
        yield _check_folder(state)
    key = state / "signing_key.pem" if settings.signing_key is None else Path(settings.signing_key)
    if key.exists() and key.stat().st_mode & _OTHERS:
        yield bad(
            "signing key",
            f"{key} can be read by other users (mode {_mode(key)}), who can then sign packages for this project",
            f"run `chmod 600 {key}`; if other users have read it, replace it as docs/security.md says",
        )
    if settings.unsigned_packages == "load":
        fix = "run `skewless sign`, then remove the setting unsigned_packages"
        yield doubt(
            "packages", "are loaded without a signature: a user who can write a package can run code in servers", fix
        )


def _check_folder(state: ProjectState) -> CheckupFinding:
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
