"""Which core the measured server has for itself; Redis and the load share another one."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import redis

_RUN_ON = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execv(sys.argv[2], sys.argv[2:])"


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Two cores of this machine, or the same twice where it has only one."""

    server: int
    load: int


def cores() -> Cores:
    """Return the last core that this process may use, for a server, and the first, for everything else."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(server=usable[-1], load=usable[0])


def on_core(core: int, command: list[str]) -> list[str]:
    """Return the command that runs a command, with all its threads and children, on one core."""
    return [sys.executable, "-c", _RUN_ON, str(core), *command]


def pin_redis(url: str, core: int) -> None:
    """Move a Redis of this machine to a core."""
    with redis.Redis.from_url(url) as client:
        os.sched_setaffinity(int(client.info("server")["process_id"]), {core})
