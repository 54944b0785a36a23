"""Honest callers beside a mix of rubbish, also while a store fails: all are answered, and the memory stays flat."""

from __future__ import annotations

import os
import shutil
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest

from benchmarks.http_wire import post
from plugins.grpc.tests.rig import PATIENCE_S, reply_of
from skewless.contract.clock import from_us
from skewless.infra.platform.access.api_keys import ApiKey, KeyStore, generate_secret, hash_secret
from skewless.infra.platform.storage.project_state import ProjectState
from skewless_grpc.messages import SERVICE, message_class
from skewless_oip.datatypes import DATATYPES
from tests.nightly.reliability.open_load import Target, TimedReply, load, quantile_ms, statuses
from tests.nightly.reliability.rubbish import RubbishRun, rubbish
from tests.nightly.reliability.rubbish_kinds import INFER, PREDICT, Site
from tests.nightly.worlds.served import LENIENT, STRICT, ServedProject, make_served, said, served
from tests.nightly.worlds.small_disk import mounted
from tests.servers.certificates import Authority
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.infer_messages import FIELDS, Input, raw_message
from tests.worlds.trained import NOW, Row, ask
from tests.worlds.waiting import until

MINUTES = float(os.environ.get("RUBBISH_MINUTES", "10"))  # beside no fault; beside a fault a fifth of them
SEED = int(os.environ.get("RUBBISH_SEED", "1"))
RATE, GRPC_PAUSE_S = 100.0, 0.1
GREEDY_RATE = 10.0
ROWS = 64
GROWTH_MIB = 32.0
pytestmark = [pytest.mark.soak, pytest.mark.timeout(60 * MINUTES + 600)]
Scores = Mapping[tuple[bool, int], float]  # by whether the online store answered, and by row


def check_calm(degraded: int) -> None:
    """The online store was always there."""
    assert degraded == 0


@dataclass(frozen=True, kw_only=True)
class RubbishTrial:
    """A served project, its callers, and what happens to it meanwhile.

    Args:
        models: of the honest callers.
        credentials: of gRPC; None: no TLS.
        fault: takes as many seconds as it is told.
        check: looks at what must have come of the fault, at the end.
    """

    project: ServedProject
    site: Site
    models: tuple[str, ...] = (LENIENT, STRICT)
    credentials: grpc.ChannelCredentials | None = None
    fault: Callable[[float], None] = time.sleep
    check: Callable[[int], None] = check_calm


def add_caller(state: Path, name: str, *scopes: str, rate: float | None = None) -> dict[str, str]:
    """Add a key, and return the headers of its requests."""
    secret = generate_secret(name)
    KeyStore(ProjectState(state)).add(
        ApiKey(name=name, digest=hash_secret(secret.encode()), scopes=frozenset(scopes), rate=rate, created_us=1)
    )
    return {"x-api-key": secret}


@contextmanager
def trial(repo: Path, redis_url: str, tls: MutualTls | None = None, **settings: str) -> Iterator[RubbishTrial]:
    """Serve a project with keys, or with client certificates."""
    state = repo / ".skewless"
    honest = {} if tls else add_caller(state, "honest", "predict", "as_of", rate=10_000.0)
    greedy = add_caller(state, "greedy", "predict", rate=GREEDY_RATE)
    settings = {
        "SKEWLESS_AUTH": "required",
        "SKEWLESS_GRPC_PORT": "0",
        "SKEWLESS_LOG_CAPACITY": "10000",  # so that memory shows only the rest
        **(tls.settings if tls else {}),
        **settings,
    }
    context = tls.honest if tls else None
    with served(repo, redis_url, headers=honest, tls=context, **settings) as project:
        host, _, port = project.server.grpc_address.rpartition(":")
        target = Target.of(project.url, context)
        yield RubbishTrial(
            project=project,
            site=Site(
                target=target,
                grpc=(host, int(port)),
                headers=honest,
                greedy=greedy,
                unknown=Target(target.address, tls.stranger) if tls else target,
            ),
            credentials=tls.credentials if tls else None,
        )


@contextmanager
def no_fault(folder: Path) -> Iterator[RubbishTrial]:
    """All is well, but for the rubbish."""
    with (
        running(Node(program("valkey"), folder / "store")) as node,
        trial(make_served(folder / "p", node.url), node.url) as made,
    ):
        yield made


@contextmanager
def full_disk(folder: Path) -> Iterator[RubbishTrial]:
    """The state folder is on a disk that is full for half of the time."""
    with running(Node(program("valkey"), folder / "store")) as node:
        repo = make_served(folder / "p", node.url)
        state = (repo / ".skewless").rename(folder / "state")
        (repo / ".skewless").mkdir()
        with mounted(repo / ".skewless", "64m"):
            shutil.copytree(state, repo / ".skewless", dirs_exist_ok=True)
            with trial(repo, node.url) as made:
                yield replace(
                    made,
                    fault=lambda seconds: fill(repo / ".skewless/ballast", seconds),
                    check=lambda degraded: check_full_disk(made.project, degraded),
                )


def fill(ballast: Path, seconds: float) -> None:
    """Wait, take all free space of a disk again and again, and free it."""
    time.sleep(seconds / 4)
    end = time.monotonic() + seconds / 2
    with ballast.open("ab", buffering=0) as file:
        while time.monotonic() < end:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass
            time.sleep(0.05)
    ballast.unlink()
    time.sleep(seconds / 4)


def check_full_disk(project: ServedProject, degraded: int) -> None:
    """Rows of the prediction log were lost, and said to be, and the server has noticed the space."""
    assert degraded == 0
    assert project.metric("skewless_log_dropped_total") > 0
    assert "prediction_log_refused" in project.log()
    assert "prediction_log_recovered" in project.log()


@contextmanager
def no_redis(folder: Path) -> Iterator[RubbishTrial]:
    """The Redis of the online rows and of the shared rates hangs, is gone, and comes back."""
    with running(Node(program("valkey"), folder / "store", {"appendonly": "yes"})) as node:
        repo = make_served(folder / "p", node.url)
        with trial(repo, node.url, SKEWLESS_RATE_LIMIT="redis") as made:
            yield replace(
                made,
                models=(LENIENT,),  # that of STRICT is 503 by design
                fault=lambda seconds: away(node, seconds),
                check=lambda degraded: check_no_redis(made.project, degraded),
            )


def away(node: Node, seconds: float) -> None:
    """Let the Redis hang for a quarter of the time, and be gone for another."""
    time.sleep(seconds / 4)
    node.freeze()
    time.sleep(seconds / 4)
    node.kill()
    time.sleep(seconds / 4)
    node.start()
    time.sleep(seconds / 4)


def check_no_redis(project: ServedProject, degraded: int) -> None:
    """Nulls were scored meanwhile, and each worker granted its share of the rates."""
    assert degraded > 0
    assert "rates_not_shared" in project.log()
    assert "rates_shared" in project.log()


@dataclass(frozen=True, kw_only=True)
class MutualTls:
    """The settings of a server that requires client certificates, and the contexts of its clients."""

    settings: Mapping[str, str]
    honest: ssl.SSLContext
    stranger: ssl.SSLContext
    credentials: grpc.ChannelCredentials


@contextmanager
def certificates(folder: Path) -> Iterator[RubbishTrial]:
    """Callers have certificates in place of keys."""
    authority = Authority(folder / "tls", since=from_us(NOW))  # the server checks them at the time of the project
    server = authority.issue("localhost", dns=["localhost"])
    honest = authority.issue("honest", uris=["spiffe://shop/honest"])

    def context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(authority.path))
        made.check_hostname = False  # the address is a number
        made.load_cert_chain(*map(str, certificate))
        return made

    files = zip(("SKEWLESS_TLS_CERT", "SKEWLESS_TLS_KEY", "SKEWLESS_TLS_CA"), (*server, authority.path), strict=True)
    tls = MutualTls(
        settings={name: str(path) for name, path in files},
        honest=context(honest),
        stranger=context(authority.issue("stranger")),
        credentials=grpc.ssl_channel_credentials(
            authority.path.read_bytes(), honest[1].read_bytes(), honest[0].read_bytes()
        ),
    )
    with running(Node(program("valkey"), folder / "store")) as node:
        repo = make_served(folder / "p", node.url)
        KeyStore(ProjectState(repo / ".skewless")).add(
            ApiKey(
                name="honest",
                digest=None,
                certificate="uri:spiffe://shop/honest",
                scopes=frozenset({"predict", "as_of"}),
                created_us=1,
            )
        )
        with trial(repo, node.url, tls) as made:
            yield made


def infer_body(row: Row) -> bytes:
    """Return a row as tensors in JSON."""
    inputs = [{"name": name, "datatype": kind, "shape": [1], "data": [row[name]]} for name, kind in FIELDS.items()]
    return orjson.dumps({"inputs": inputs, "parameters": {"as_of": NOW}})


def predict_body(model: str, row: Row) -> bytes:
    return orjson.dumps({"model": model, "rows": [row], "as_of": NOW})


def honest_requests(site: Site, models: tuple[str, ...]) -> list[bytes]:
    """Return for each row a request in each protocol; the time is that of the project, so that scores do not change."""
    return [
        request
        for i, row in enumerate(ask(ROWS))
        for request in (
            post(PREDICT, predict_body(models[i % len(models)], row), site.headers),
            post(INFER, infer_body(row), site.headers),
        )
    ]


def score_of(body: Mapping[str, Any]) -> tuple[bool, float]:
    """Return whether the online store answered, and the score."""
    if "outputs" in body:
        return not body["parameters"]["degraded"], body["outputs"][0]["data"][0]
    return not body["degraded"], body["predictions"][0]["score"]


def expected_scores(project: ServedProject) -> Scores:
    """Return the scores of all rows, and those of entities without features, which are those without a store."""
    scores = {}
    for known in (True, False):
        for i, row in enumerate(ask(ROWS)):
            status, body = project.server.post(
                PREDICT, predict_body(LENIENT, row if known else row | {"card_id": 1 + i, "shop_id": "none"}).decode()
            )
            assert status == 200, body
            scores[known, i] = score_of(body)[1]
    assert len(set(scores.values())) > ROWS
    return scores


def check_replies(replies: list[TimedReply], scores: Scores) -> int:
    """Each was answered with the score to the last bit; return how many without the online store."""
    degraded = 0
    for reply in replies:
        assert reply.status == 200, reply
        is_whole, score = score_of(said(reply))
        assert score == scores[is_whole, reply.place // 2], reply
        degraded += not is_whole
    return degraded


@dataclass
class GrpcCaller:
    """Calls over one channel, one after another."""

    trial: RubbishTrial
    scores: Scores
    calls: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    def run(self, stopping: threading.Event) -> None:
        """Ask until stopped."""
        site, row = self.trial.site, ask(1)[0]
        inputs: list[Input] = [
            (name, kind, (1,), np.array([row[name].encode() if kind == "BYTES" else row[name]], DATATYPES[kind].numpy))
            for name, kind in FIELDS.items()
        ]
        message = raw_message(inputs, as_of=NOW).SerializeToString()
        host, port = site.grpc
        options = [("grpc.ssl_target_name_override", "localhost")]
        with (
            grpc.insecure_channel(f"{host}:{port}")
            if self.trial.credentials is None
            else grpc.secure_channel(f"{host}:{port}", self.trial.credentials, options=options)
        ) as channel:
            infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            while not stopping.wait(GRPC_PAUSE_S):
                began = time.perf_counter()
                reply = reply_of(infer, message, timeout=PATIENCE_S, metadata=list(site.headers.items()))
                self.slowest_s = max(self.slowest_s, time.perf_counter() - began)
                self.calls[self._verdict(reply.code, reply.message, reply.text)] += 1

    def _verdict(self, code: str, message: bytes, text: str) -> str:
        if code != "OK":
            return f"{code}: {text}"
        reply = message_class("ModelInferResponse").FromString(message)
        score = struct.unpack("<d", reply.raw_output_contents[0])[0]
        is_whole = not reply.parameters["degraded"].bool_param
        return "OK" if score == self.scores[is_whole, 0] else f"another score: {score}"


@contextmanager
def running_thread(run: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run something beside the block, until its end."""
    stopping = threading.Event()
    thread = threading.Thread(target=run, args=(stopping,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@dataclass
class MemorySamples:
    """The resident memory of a server, each second."""

    project: ServedProject
    mib: list[float] = field(default_factory=list)

    def run(self, stopping: threading.Event) -> None:
        """Measure until stopped."""
        while not stopping.wait(1.0):
            self.mib.append(self.project.rss_mib())

    @property
    def growth_mib(self) -> float:
        """From the most of the first quarter to the most of the second half."""
        return max(self.mib[len(self.mib) // 2 :]) - max(self.mib[: len(self.mib) // 4])


def check_rubbish(thrown: RubbishRun, seconds: float) -> None:
    """Each piece was refused with a status that fits, or hung up on; the greedy got no more than their rate."""
    assert not thrown.problems, "\n".join(thrown.problems[:20])
    counts = thrown.counts
    assert counts["beyond its rate", 429] > 0
    # A bucket is full at the start, and when its place changes.
    assert counts["beyond its rate", 200] <= GREEDY_RATE * (1.2 * seconds + 10)
    if seconds > 100:
        assert counts["dawdler", "dropped"] > 0


@pytest.mark.parametrize(
    ("open_trial", "minutes"),
    [(no_fault, MINUTES), (full_disk, MINUTES / 5), (no_redis, MINUTES / 5), (certificates, MINUTES / 5)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_honest_callers_beside_rubbish(
    open_trial: Callable[[Path], Any], minutes: float, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    with open_trial(tmp_path) as made:
        project: ServedProject = made.project
        project.until_calm()
        scores = expected_scores(project)
        requests = honest_requests(made.site, made.models)
        memory, caller = MemorySamples(project), GrpcCaller(made, scores)
        with (
            running_thread(memory.run),
            running_thread(caller.run),
            rubbish(made.site, SEED) as thrown,
            load(project.url, requests, rate=RATE, tls=made.site.target.tls) as sender,
        ):
            made.fault(60 * minutes)
            project.until_calm()
        replies = sender.replies
        tell(
            f"seed {SEED}: {len(replies)} honest requests: {dict(statuses(replies))}, "
            f"p50 {quantile_ms(replies, 0.5):.1f} ms, p99 {quantile_ms(replies, 0.99):.1f} ms, "
            f"longest {quantile_ms(replies, 1.0):.0f} ms; {caller.calls} over gRPC, "
            f"slowest {1e3 * caller.slowest_s:.0f} ms; memory {memory.mib[0]:.0f} -> {memory.mib[-1]:.0f} MiB, "
            f"at most {max(memory.mib):.0f}, grown by {memory.growth_mib:.0f}: "
            f"{', '.join(f'{mib:.0f}' for mib in memory.mib[:: len(memory.mib) // 24 + 1])}"
        )
        tell("\n".join([*thrown.lines(), *thrown.problems[:20]]))
        project.check_log()
        assert sender.hung == 0
        degraded = check_replies(replies, scores)
        tell(f"{degraded} replies without the online store")
        assert caller.calls.keys() == {"OK"}
        check_rubbish(thrown, 60 * minutes)
        assert memory.growth_mib < GROWTH_MIB
        made.check(degraded)
        until(lambda: project.metric("skewless_requests_in_flight") == 0)
        dropped = project.metric("skewless_log_dropped_total")
        assert project.prove() + dropped >= len(replies)
