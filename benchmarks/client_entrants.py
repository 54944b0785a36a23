"""Contestants of the client comparison: each sends one row and reads the score, on a connection that it keeps."""

# ruff: noqa: PLC0415 - each loads its own library alone

from __future__ import annotations

import importlib
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.meter import Meter, resident_bytes

ROW = {"card_id": 9_007_199_254_740_993, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"}
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "Authorization": "Bearer sk_bench_1"}
_SECONDS = 10.0
_WARM = 200

Requester = Callable[[], Any]
AskLater = Callable[[], Awaitable[Any]]


def threads(meter: Meter, *, library: str, url: str, calls: int) -> str:
    """Ask one call after the other in one thread; return the score."""
    _load(meter, library, ".sync_client")
    ask = {"skewless.client": _client, "http.client": _standard, "urllib3": _urllib3, "httpx": _httpx}[library](url)
    score = [ask() for _ in range(_WARM)][-1]
    with meter.lap(times=calls):
        for _ in range(calls):
            score = ask()
    return str(score)


def tasks(meter: Meter, *, library: str, url: str, calls: int) -> str:
    """Ask one call after the other in one task; return the score."""
    _load(meter, library, ".async_client")
    import asyncio

    return asyncio.run(_tasks(meter, library, url, calls))


async def _tasks(meter: Meter, library: str, url: str, calls: int) -> str:
    async with AsyncExitStack() as stack:
        makers = {"skewless.client": _async_client, "aiohttp": _aiohttp, "httpx": _async_httpx}
        ask = await makers[library](url, stack)
        score = [await ask() for _ in range(_WARM)][-1]
        with meter.lap(times=calls):
            for _ in range(calls):
                score = await ask()
    return str(score)


def _load(meter: Meter, library: str, ours: str) -> None:
    before = resident_bytes()
    with meter.lap("import"):
        importlib.import_module(library + ours if library == "skewless.client" else library)
    meter.note("import_bytes", resident_bytes() - before)


def _body() -> bytes:
    import orjson

    return orjson.dumps({"rows": [ROW]})


def _score(body: bytes) -> float:
    import orjson

    return float(orjson.loads(body)["predictions"][0]["score"])


def _client(url: str) -> Requester:
    from skewless.client import Client

    client = Client(url, key="sk_bench_1")
    return lambda: client.predict([ROW]).scores[0]


def _standard(url: str) -> Requester:
    from http.client import HTTPConnection

    connection = HTTPConnection(url.removeprefix("http://"), timeout=_SECONDS)

    def ask() -> float:
        connection.request("POST", "/predict", _body(), _HEADERS)
        return _score(connection.getresponse().read())

    return ask


def _urllib3(url: str) -> Requester:
    import urllib3

    pool = urllib3.connection_from_url(url, timeout=_SECONDS, retries=False)
    return lambda: _score(pool.urlopen("POST", "/predict", _body(), _HEADERS).data)


def _httpx(url: str) -> Requester:
    import httpx  # type: ignore[import-not-found]  # it has an environment of its own

    client: Any = httpx.Client(base_url=url, headers=_HEADERS, timeout=_SECONDS, trust_env=False)
    return lambda: _score(client.post("/predict", content=_body()).content)


async def _async_client(url: str, stack: AsyncExitStack) -> AskLater:
    from skewless.client import AsyncClient

    client = await stack.enter_async_context(AsyncClient(url, key="sk_bench_1"))

    async def ask() -> float:
        return (await client.predict([ROW])).scores[0]

    return ask


async def _aiohttp(url: str, stack: AsyncExitStack) -> AskLater:
    import aiohttp

    timeout, jar = aiohttp.ClientTimeout(total=_SECONDS), aiohttp.DummyCookieJar()
    session: Any = aiohttp.ClientSession(url, headers=_HEADERS, timeout=timeout, cookie_jar=jar)
    await stack.enter_async_context(session)

    async def ask() -> float:
        async with session.post("/predict", data=_body()) as reply:
            return _score(await reply.read())

    return ask


async def _async_httpx(url: str, stack: AsyncExitStack) -> AskLater:
    import httpx

    client: Any = httpx.AsyncClient(base_url=url, headers=_HEADERS, timeout=_SECONDS, trust_env=False)
    await stack.enter_async_context(client)

    async def ask() -> float:
        return _score((await client.post("/predict", content=_body())).content)

    return ask


def request() -> bytes:
    """Return the request that all of them send, for a look whether the server is there."""
    from benchmarks.http_wire import post

    return post("/predict", json.dumps({"rows": [ROW]}).encode())
