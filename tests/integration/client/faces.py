"""Both clients under one hand, so that each test is written once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol

from skewless.client import AsyncClient, Client


@dataclass
class Time:
    """A clock that moves only as far as somebody sleeps."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def pause(self, seconds: float) -> None:
        self.sleep(seconds)


class Face(Protocol):
    """A client of either kind."""

    time: Time

    def ask(self, name: str, /, *args: Any, **options: Any) -> Any: ...  # noqa: ANN401 - any method of the client

    def ask_at_once(self, n: int, name: str, /, *args: object) -> list[Any]:
        """Ask the same n times side by side; return answers and errors."""
        ...

    def close(self) -> None: ...

    def shown(self) -> str: ...


class Threads:
    """``Client``."""

    def __init__(self, *urls: str, **settings: Any) -> None:  # noqa: ANN401 - as the client takes them
        self.time = Time()
        own = {"clock": self.time.clock, "sleep": self.time.sleep, "chance": lambda: 0.5}
        self.client = Client(*urls, **{**own, **settings})

    def ask(self, name: str, /, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        return getattr(self.client, name)(*args, **options)

    def ask_at_once(self, n: int, name: str, /, *args: object) -> list[Any]:
        async def all_of_them() -> list[Any]:
            calls = [asyncio.to_thread(self.ask, name, *args) for _ in range(n)]
            return list(await asyncio.gather(*calls, return_exceptions=True))

        return asyncio.run(all_of_them())

    def close(self) -> None:
        self.client.close()

    def shown(self) -> str:
        return f"{self.client!r} {vars(self.client)}"


class Tasks:
    """``AsyncClient``, on an event loop of its own."""

    def __init__(self, *urls: str, **settings: Any) -> None:  # noqa: ANN401 - as the client takes them
        self.time = Time()
        own = {"clock": self.time.clock, "sleep": self.time.pause, "chance": lambda: 0.5}
        self.client = AsyncClient(*urls, **{**own, **settings})
        self.runner = asyncio.Runner()

    def ask(self, name: str, /, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        return self.runner.run(getattr(self.client, name)(*args, **options))

    def ask_at_once(self, n: int, name: str, /, *args: object) -> list[Any]:
        async def all_of_them() -> list[Any]:
            calls = [getattr(self.client, name)(*args) for _ in range(n)]
            return list(await asyncio.gather(*calls, return_exceptions=True))

        return self.runner.run(all_of_them())

    def close(self) -> None:
        self.runner.run(self.client.close())
        self.runner.close()

    def shown(self) -> str:
        return f"{self.client!r} {vars(self.client)}"


FACES: dict[str, type[Threads | Tasks]] = {"threads": Threads, "asyncio": Tasks}
