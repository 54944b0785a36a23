"""``ModelInfer`` over gRPC against handlers of grpcio that do nothing, and what an idle gRPC port costs HTTP.

The load is h2load (Debian: nghttp2-client), 8 connections with 4 streams each, beside Redis on the other core.
"""

from __future__ import annotations

import re
import shutil
import socket
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.contestant import ContestantError
from benchmarks.cores import on_core
from benchmarks.http_load import Address
from benchmarks.http_wire import body_of
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import Running, Server, peer_server, running
from benchmarks.serving_asks import MODEL
from benchmarks.serving_project import ServedProject, served_project
from benchmarks.serving_repo import Ids, Shape, shop_name
from skewless_grpc.messages import SERVICE, message_class

OWN, THREADS, ASYNCIO = "skewless", "grpcio's server with threads, empty", "grpcio's asyncio server, empty"
HTTP, HTTP_ALONE = "HTTP with the gRPC port", "`/predict` over HTTP"
_METHOD = f"/{SERVICE}/ModelInfer"
_CONNECTIONS, _STREAMS = 8, 4
_COMPARED = 50
_START_S = 30.0
_TARGET, _HTTP_TARGET = 0.8, 0.98
_RATE = re.compile(r", ([\d.]+) req/s")
_DATA = re.compile(r"\((\d+)\) data")
_LEAST_BYTES = 30
_FAILED = re.compile(r"(\d+) succeeded, (\d+) failed")


@dataclass(frozen=True, kw_only=True)
class Load:
    """A measured load.

    Args:
        rate: calls per second.
        cpu_us: CPU time of the server for a call, microseconds.
    """

    rate: float
    cpu_us: float


def run() -> list[Result]:
    """Ask servers in turn, each in rounds of two seconds or so."""
    if shutil.which("h2load") is None:
        raise ContestantError("h2load is missing. Fix: apt-get install nghttp2-client")
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    with served_project(shape) as project, tempfile.TemporaryDirectory() as name:
        turns = _race(project, Path(name))
    return _rows(turns)


def _race(project: ServedProject, folder: Path) -> Mapping[str, list[Load]]:
    pairs = project.pairs()
    http, message = project.predict(pairs[:1]), infer_message(pairs[0]).SerializeToString()
    (folder / "http").write_bytes(body_of(http))
    (folder / "grpc").write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
    reply = _response([0.5]).SerializeToString().hex()
    turns: dict[str, list[Load]] = {}
    with ExitStack() as stack:
        port = _free_port()
        server = project.server(http)
        with_port = replace(server, environment={**server.environment, "SKEWLESS_GRPC_PORT": str(port)})
        own = stack.enter_context(running(with_port, project.where.server))
        alone = stack.enter_context(running(server, project.where.server))
        _compare(project, port, pairs[:_COMPARED])
        servers = {OWN: (replace(own, address=Address(port=port)), "grpc"), HTTP: (own, "http")}
        servers[HTTP_ALONE] = (alone, "http")
        for name, kind in ((THREADS, "threads"), (ASYNCIO, "asyncio")):
            peer = peer_server("empty_grpc", kind, reply, name=name, first=b"")
            servers[name] = (stack.enter_context(_peer(peer, project.where.server)), "grpc")
        for _ in range(rounds(5) + 1):
            for name, (target, protocol) in servers.items():
                turns.setdefault(name, []).append(_load(project, target, protocol, folder / protocol))
    return {name: loads[1:] or loads for name, loads in turns.items()}  # the first warms up


def _rows(turns: Mapping[str, list[Load]]) -> list[Result]:
    what = "serving_grpc: `ModelInfer`, one pair, 2 views, 40 features, 200 trees, 32 streams"
    results = []
    for peer, least in ((THREADS, _TARGET), (ASYNCIO, _TARGET), (HTTP_ALONE, None)):
        most = None if least is None else 1 / least
        for quantity, unit, target in (("rate", "calls/s", least), ("cpu_us", "us", most)):
            own, other = ([getattr(load, quantity) for load in turns[name]] for name in (OWN, peer))
            results.append(
                Result(
                    name=what if quantity == "rate" else f"{what}, CPU of the server for a call",
                    value=statistics.median(own),
                    unit=unit,
                    against=f"{peer} ({statistics.median(other):,.4g} {unit})",
                    ratio=statistics.median(a / b for a, b in zip(own, other, strict=True)),
                    target=target,
                )
            )
    own, other = ([load.rate for load in turns[name]] for name in (HTTP, HTTP_ALONE))
    http = Result(
        name="serving_grpc: `/predict` over HTTP, concurrency 32, with an idle gRPC port",
        value=statistics.median(own),
        unit="requests/s",
        against=f"without it ({statistics.median(other):,.0f} requests/s)",
        ratio=statistics.median(a / b for a, b in zip(own, other, strict=True)),
        target=_HTTP_TARGET,
    )
    return [*results, http]


def infer_message(pair: Ids) -> Any:  # noqa: ANN401 - a message
    """Return a request for one pair of card and shop, shape ``(2,)``."""
    shop = shop_name(int(pair[1])).encode()
    message = message_class("ModelInferRequest")(model_name=MODEL)
    for name, datatype, raw in (
        ("card_id", "INT64", struct.pack("<q", int(pair[0]))),
        ("shop_id", "BYTES", struct.pack("<I", len(shop)) + shop),
    ):
        message.inputs.add(name=name, datatype=datatype, shape=[1])
        message.raw_input_contents.append(raw)
    return message


def _response(scores: list[float]) -> Any:  # noqa: ANN401 - a message
    message = message_class("ModelInferResponse")(model_name=MODEL, model_version="000001")
    message.outputs.add(name="score", datatype="FP64", shape=[len(scores)])
    message.raw_output_contents.append(np.array(scores).tobytes())
    return message


def _compare(project: ServedProject, port: int, pairs: Ids) -> None:
    expected = project.scores(project.shape.vectors(pairs))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary(_METHOD)
        replies = [
            method(infer_message(pair).SerializeToString(), metadata=[("x-api-key", project.key)]) for pair in pairs
        ]
    kind = message_class("ModelInferResponse")
    scores = [np.frombuffer(kind.FromString(reply).raw_output_contents[0])[0] for reply in replies]
    if not np.array_equal(scores, expected):
        raise ContestantError("the scores over gRPC are not those of the library")


def _load(project: ServedProject, server: Running, protocol: str, body: Path) -> Load:
    n = scaled(20_000)
    if protocol == "grpc":
        shape = ["-c", str(_CONNECTIONS), "-m", str(_STREAMS), "-H", "te: trailers"]
        shape += ["-H", "content-type: application/grpc"]
    else:
        shape = ["--h1", "-c", str(_CONNECTIONS * _STREAMS), "-m", "1", "-H", "content-type: application/json"]
    url = f"http://127.0.0.1:{server.address.port}{_METHOD if protocol == 'grpc' else '/predict'}"
    shape += ["-n", str(n), "-H", f"x-api-key: {project.key}", "-d", str(body)]
    command = [shutil.which("h2load") or "", *shape, url]
    before = server.cpu_seconds()
    done = subprocess.run(on_core(project.where.load, command), capture_output=True, text=True, check=False)
    cpu_s = server.cpu_seconds() - before
    rate, failed, data = (pattern.search(done.stdout) for pattern in (_RATE, _FAILED, _DATA))
    # An error of gRPC has status 200, but no data.
    if rate is None or failed is None or data is None or failed[2] != "0" or int(data[1]) < n * _LEAST_BYTES:
        raise ContestantError(f"h2load failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    return Load(rate=float(rate[1]), cpu_us=cpu_s / n * 1e6)


@contextmanager
def _peer(server: Server, core: int) -> Iterator[Running]:
    """Start a gRPC server, yield it when it listens, and stop it."""
    port, begun = _free_port(), time.perf_counter()
    command = [part.replace("{port}", str(port)) for part in server.command]
    process = subprocess.Popen(on_core(core, command))
    try:
        while not _listens(port):
            if process.poll() is not None or time.perf_counter() - begun > _START_S:
                raise ContestantError(f"{server.name} does not listen")
            time.sleep(0.05)
        yield Running(address=Address(port=port), pid=process.pid, ready_seconds=time.perf_counter() - begun)
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
