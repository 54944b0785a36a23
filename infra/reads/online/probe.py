"""Looks at a Redis as an operator does: versions, room, persistence, clock, and which commands the user may run."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoPermissionError, NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError

from skewless.infra.reads.online.clients import translate_errors
from skewless.infra.reads.online.servers import RedisClient

_EXPIRY_S = 60
_READS = 5
_NO_DIGEST = "0" * 40


@dataclass(frozen=True, kw_only=True)
class ServerFacts:
    """The facts that one server reports about itself.

    Args:
        program: ``redis`` or ``valkey``.
        version: its version, by its own numbers.
        used_bytes, limit_bytes: memory in use, and ``maxmemory``; 0: no limit.
        is_persistent: the append-only file is on.
        write_problem: the last write of the append-only file or snapshot failed; None: it did not.
    """

    program: str
    version: tuple[int, ...]
    used_bytes: int
    limit_bytes: int
    is_persistent: bool
    write_problem: str | None


@dataclass(frozen=True, kw_only=True)
class CommandRights:
    """The rights of the user in the URL.

    Args:
        denied: commands that it may not run, or not on keys of this project.
        full: the server has no room for writes.
        is_replica: the server takes no writes.
        read_ms: shortest of five reads, milliseconds.
    """

    denied: tuple[str, ...]
    full: bool
    is_replica: bool
    read_ms: float


class RedisProbe(RedisClient):
    """Commands that change nothing but one key of its own, which expires after a minute if this process is killed."""

    def facts(self) -> list[ServerFacts]:
        """Return the facts of each master.

        Raises:
            StoreError: a server is unavailable, or the user may not run INFO.
        """
        with translate_errors(self._url):
            return [_read_facts(client.info("default")) for client in self._servers.masters()]

    def rights(self, project: str) -> CommandRights:
        """Return which of the needed commands the user may run on keys of a project.

        Raises:
            StoreError: a server is unavailable.
        """
        key, client = f"sk:{project}:doctor:{{{secrets.token_hex(8)}}}", self._servers.client
        denied, full, replica = [], False, False
        with translate_errors(self._url):
            for name, call in self._calls(client, key):
                try:
                    call()
                except NoPermissionError:
                    denied.append(name)
                except NoScriptError:
                    pass  # the user may run scripts, and there is none of this name
                except OutOfMemoryError:
                    full = True
                except ReadOnlyError:
                    replica = True
                except ResponseError as error:
                    # A script's refused command has the error of the script.
                    if "NOPERM" not in str(error) and "permission" not in str(error).lower():
                        raise
                    denied.append(name)
            read_ms = min((_timed(lambda: client.get(key)) for _ in range(_READS)), default=0.0)
        return CommandRights(denied=tuple(denied), full=full, is_replica=replica, read_ms=read_ms)

    def _calls(self, client: Any, key: str) -> Iterator[tuple[str, Callable[[], object]]]:  # noqa: ANN401 - redis-py's clients are untyped
        master = self._servers.masters()[0]
        yield "time", master.time
        yield "script", lambda: master.script_exists(_NO_DIGEST)
        yield "set", lambda: client.set(key, b"1", ex=_EXPIRY_S)
        yield "get", lambda: client.get(key)
        yield "mget", lambda: client.mget([key])
        yield "eval", lambda: client.eval("return 1", 1, key)
        yield "evalsha", lambda: client.evalsha(_NO_DIGEST, 1, key)
        # One packet: the server runs both commands even if this process is killed between them.
        yield "mset", lambda: _pipeline(client, key)
        yield "unlink", lambda: client.unlink(key)
        yield "scan", lambda: master.scan(0, match=key, count=1)


def _pipeline(client: Any, key: str) -> None:  # noqa: ANN401 - redis-py's clients are untyped
    pipeline = client.pipeline(transaction=False)
    pipeline.mset({key: b"1"})
    pipeline.unlink(key)
    replies = pipeline.execute(raise_on_error=False)
    if isinstance(replies[0], Exception):
        raise replies[0]


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    with suppress(ResponseError):
        work()
    return (time.perf_counter() - started) * 1e3


def _read_facts(info: dict[str, Any]) -> ServerFacts:
    program = str(info.get("server_name", "redis"))
    version = str(info.get(f"{program}_version", info["redis_version"]))
    failed = [name for name in ("aof_last_write_status", "rdb_last_bgsave_status") if info.get(name, "ok") != "ok"]
    return ServerFacts(
        program=program,
        version=tuple(int(part) for part in version.split(".") if part.isdigit()),
        used_bytes=int(info.get("used_memory", 0)),
        limit_bytes=int(info.get("maxmemory", 0)),
        is_persistent=bool(info.get("aof_enabled", 0)),
        write_problem=", ".join(failed) or None,
    )
