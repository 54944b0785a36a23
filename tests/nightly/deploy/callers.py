"""Callers of predictions who wait for each reply: every one is compared with the right value, every failure is kept."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import orjson
import uvloop

from benchmarks.http_wire import body_of, is_whole, post, status_of
from tests.nightly.deploy.gateways import HOST, RunningGateway
from tests.worlds.waiting import PATIENCE_S, until

CALLERS = 64


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request, and the right score of each version that may answer; some may become known later."""

    request: bytes
    scores: dict[str, float]


def question(fields: Mapping[str, object], scores: dict[str, float], sticky_key: str, api_key: str) -> Question:
    """Return a question with JSON fields, about one row."""
    headers = {"x-sticky-key": sticky_key, "authorization": f"Bearer {api_key}"}
    return Question(request=post("/predict", orjson.dumps(fields), headers), scores=scores)


@dataclass
class Callers:
    """Results so far, for the thread of the test.

    Attributes:
        versions: number of right replies by version.
        unknown: scores of versions whose right scores are not known yet, with their questions.
        failures: what else came: a status with its body, a wrong value, or an error of the connection.
        slowest_s: longest time of a reply, seconds.
    """

    gateway: RunningGateway
    questions: Sequence[Question]
    pause_s: float = 0.0
    versions: Counter[str] = field(default_factory=Counter)
    unknown: list[tuple[Question, str, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    _stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def answered(self) -> int:
        """Number of replies with a right or an unknown score."""
        return self.versions.total() + len(self.unknown)

    def wait_answers(self, n: int) -> None:
        """Wait until so many more replies have come, right or not."""
        goal = self.answered + len(self.failures) + n
        until(lambda: self.answered + len(self.failures) >= goal)

    def stop(self) -> None:
        """End each caller after its reply."""
        self._stopping.set()

    async def run(self) -> None:
        """Ask until stopped."""
        tls = self.gateway.tls
        turns = itertools.cycle(self.questions)
        await asyncio.gather(*(self._call(tls, turns) for _ in range(CALLERS)))

    async def _call(self, tls: ssl.SSLContext, turns: Iterator[Question]) -> None:
        while not self._stopping.is_set():
            try:
                reader, writer = await asyncio.open_connection(HOST, self.gateway.port, ssl=tls)
                with contextlib.closing(writer):
                    await self._ask_in_turn(reader, writer, turns)
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            except (OSError, EOFError, TimeoutError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")

    async def _ask_in_turn(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, turns: Iterator[Question]
    ) -> None:
        now = asyncio.get_running_loop().time
        is_open = True
        while is_open and not self._stopping.is_set():
            question, begin = next(turns), now()
            async with asyncio.timeout(PATIENCE_S):
                reply = await _exchange(reader, writer, question.request)
            self.slowest_s = max(self.slowest_s, now() - begin)
            self._judge(question, reply)
            is_open = b"\r\nconnection: close" not in reply.partition(b"\r\n\r\n")[0].lower()
            await asyncio.sleep(self.pause_s)

    def _judge(self, question: Question, reply: bytes) -> None:
        if status_of(reply) != 200:
            self.failures.append(reply.decode(errors="replace"))
            return
        body = orjson.loads(body_of(reply))
        if body["degraded"]:
            self.failures.append(reply.decode())
        elif body["version"] in question.scores:
            self._compare(question, body["version"], body["predictions"][0]["score"])
        else:
            self.unknown.append((question, body["version"], body["predictions"][0]["score"]))

    def _compare(self, question: Question, version: str, score: float) -> None:
        if score == (right := question.scores[version]):
            self.versions[version] += 1
        else:
            self.failures.append(f"version {version} of {question.request!r}: {score}, not {right}")

    def judge_unknown(self) -> None:
        """Compare the scores whose right ones are known by now."""
        for question, version, score in self.unknown:
            self._compare(question, version, score)
        self.unknown.clear()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    writer.write(request)
    received = b""
    while not (received and is_whole(received)):
        data = await reader.read(65_536)
        if not data:
            raise EOFError(f"the connection ended after {received!r}")
        received += data
    return received


@contextmanager
def calling(gateway: RunningGateway, questions: Sequence[Question], pause_s: float = 0.0) -> Iterator[Callers]:
    """Let 64 callers ask for the length of a block; at its end, every request has its reply or is a failure."""
    callers = Callers(gateway, questions, pause_s)
    thread = threading.Thread(target=lambda: uvloop.run(callers.run()))
    thread.start()
    try:
        callers.wait_answers(CALLERS)
        yield callers
    finally:
        callers.stop()
        thread.join()
