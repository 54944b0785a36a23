"""Parses the URL of a Redis server, of a Redis Cluster, or of a master that Sentinel manages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from redis.connection import SSLConnection, parse_url

from skewless.contract.errors import StoreError

Kind = Literal["server", "cluster", "sentinel"]
_DEFAULT_PORTS = {"server": 6379, "cluster": 6379, "sentinel": 26379}
_FIX = (
    "write redis://HOST:PORT/DB, unix://, redis+cluster://HOST:PORT,HOST:PORT/ or "
    "redis+sentinel://HOST:PORT,HOST:PORT/NAME/DB, with rediss for TLS; "
    "in a password '/' is %2F, '@' is %40, ':' is %3A; "
    "another scheme needs the package of its adapter, and stream_url for push sources"
)


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """The parsed URL of a Redis.

    Args:
        kind: one server, a cluster, or a master that Sentinel manages.
        url: the unchanged URL.
        hosts: hosts and ports to connect to first: cluster nodes or sentinels; empty for one server.
        service: the name of the master in Sentinel; empty otherwise.
        options: keyword arguments for redis-py's connections: user, password, database, TLS.
    """

    kind: Kind
    url: str
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    options: Mapping[str, Any]

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Parse a URL.

        >>> RedisAddress.parse("redis+sentinel://a:1,b/features/2").hosts
        (('a', 1), ('b', 26379))

        Raises:
            StoreError: it is not the URL of a Redis. The error does not quote the URL, which may hold a password.
        """
        try:
            return cls._parse_parts(url)
        except ValueError:
            raise StoreError("setting 'redis_url'", "is not the URL of a Redis", fix=_FIX) from None

    @classmethod
    def _parse_parts(cls, url: str) -> RedisAddress:
        kind = _parse_kind(url)
        if kind == "server":
            return cls(kind=kind, url=url, options=_parse_options(url))
        # urlsplit does not understand several hosts, so the authority is split by hand.
        scheme, _, rest = url.partition("://")
        authority, _, path = rest.partition("/")
        user, at, names = authority.rpartition("@")
        path, mark, query = path.partition("?")
        service, _, database = path.strip("/").partition("/") if kind == "sentinel" else ("", "", path.strip("/"))
        if (kind == "sentinel") is not bool(service) or not names:
            raise ValueError(kind)
        # redis-py parses user, password, database and TLS from a URL with one placeholder host.
        plain = f"{scheme.partition('+')[0]}://{user}{at}host/{database}{mark}{query}"
        options = _parse_options(plain)
        if kind == "cluster" and options.get("db"):
            raise ValueError(kind)  # a cluster has one database
        hosts = tuple(_parse_host(name, _DEFAULT_PORTS[kind]) for name in names.split(","))
        return cls(kind=kind, url=url, hosts=hosts, service=unquote(service), options=options)


def _parse_kind(url: str) -> Kind:
    scheme = url.partition("://")[0]
    if scheme in {"redis+cluster", "rediss+cluster"}:
        return "cluster"
    if scheme in {"redis+sentinel", "rediss+sentinel"}:
        return "sentinel"
    return "server"


def _parse_options(url: str) -> dict[str, Any]:
    options = dict(parse_url(url))  # type: ignore[no-untyped-call]
    kind = options.pop("connection_class", None)
    if kind is SSLConnection:
        options["ssl"] = True
    elif kind is not None:
        options["unix_socket_path"] = options.pop("path")
    for name in ("host", "port"):
        options.pop(name, None)
    return options


def _parse_host(name: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{name}")
    if not parts.hostname:
        raise ValueError(name)
    return parts.hostname, parts.port or default
