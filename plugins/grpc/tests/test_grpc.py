"""Predictions over gRPC are those of HTTP: bits, errors, keys, rates, log, counts; and a server that ends answers."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import pyarrow.parquet as pq
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.grpc.tests.rig import PATIENCE_S, GrpcReply, ask, reply_of
from skewless.infra.platform.access.api_keys import ApiKey, KeyStore, generate_secret, hash_secret
from skewless_grpc.messages import SERVICE, message_class, method_messages
from skewless_oip.datatypes import DATATYPES
from tests.servers.prediction import PredictionServer
from tests.worlds.infer_messages import (
    CONTENTS,
    Input,
    http_bodies,
    payments,
    raw_message,
    tensors_of_grpc,
    tensors_of_http,
    typed_message,
)
from tests.worlds.trained import NOW, Sandbox, opened_copy, serving
from tests.worlds.waiting import eventually, until

SETTINGS = {"SKEWLESS_GRPC_PORT": "0", "SKEWLESS_AUTH": "required", "SKEWLESS_DRAIN_SECONDS": "1"}
INFER = f"/{SERVICE}/ModelInfer"
HTTP_STATUS = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503}
OUTPUTS = ["score", "feature_values", "feature_status", "feature_age_s", "feature_stale"]
OUTPUTS += ["contributions", "leaves", "version"]


@dataclass(frozen=True)
class KeyedServer:
    """A server that requires keys, and the secrets of its keys by name."""

    server: PredictionServer
    address: str
    place: Sandbox
    keys: Mapping[str, str]

    def infer(self, message: Any, key: str | None = "both", **options: Any) -> GrpcReply:  # noqa: ANN401 - a message
        return self.ask(INFER, message.SerializeToString(), key, **options)

    def ask(self, path: str, message: bytes = b"", key: str | None = None, **options: Any) -> GrpcReply:  # noqa: ANN401
        metadata = [] if key is None else [("authorization", f"Bearer {self.keys[key]}")]
        return ask(self.address, path, message, metadata=metadata, **options)

    def post(self, body: bytes, **headers: str) -> tuple[int, bytes, int | None]:
        """Return status, body and length of the JSON of a reply over HTTP."""
        connection = HTTPConnection(urlsplit(self.server.url).netloc, timeout=PATIENCE_S)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request("POST", "/v2/models/fraud/infer", body, {"X-API-Key": self.keys["both"], **headers})
            reply = connection.getresponse()
            length = reply.getheader("inference-header-content-length")
            return reply.status, reply.read(), None if length is None else int(length)
        finally:
            connection.close()


@pytest.fixture(scope="module")
def keyed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedServer]:
    with opened_copy(trained, tmp_path_factory.mktemp("grpc") / "p") as place:
        keys = {}
        scopes = {"both": {"predict", "as_of"}, "predict": {"predict"}, "slow": {"predict"}, "admin": {"admin"}}
        for name, names in scopes.items():
            keys[name] = generate_secret(name)
            key = ApiKey(
                name=name,
                digest=hash_secret(keys[name].encode()),
                scopes=frozenset(names),
                rate=1.0 if name == "slow" else None,
                created_us=1,
            )
            KeyStore(place.project.state).add(key)
        with serving(place.repo, **SETTINGS) as server:
            yield KeyedServer(server, server.grpc_address, place, keys)


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[Input], list[str]]:
    """Draw the inputs and outputs of a request; most are right, but for a part."""
    n = draw(st.integers(1, 3))
    inputs = payments(n)
    fault = draw(st.sampled_from(["none", "none", "values", "datatype", "shape", "missing", "twice", "name"]))
    at = draw(st.integers(0, 3))
    name, kind, shape, array = inputs[at]
    if fault == "values" and kind in {"FP64", "INT64"}:
        numbers = st.floats(width=64) if kind == "FP64" else st.integers(-(2**63), 2**63 - 1)
        array = np.array(draw(st.lists(numbers, min_size=n, max_size=n)), dtype=array.dtype)
    elif fault == "datatype" and kind != "BYTES":
        kind = draw(st.sampled_from(sorted(CONTENTS.keys() - {"BYTES"})))
        array = np.array([1] * n).astype(DATATYPES[kind].numpy)
    elif fault == "shape":
        shape = draw(st.sampled_from([(n, 1), (1, n), (), (0,), (n, 0), (-1,), (n, 1, 1)]))
    inputs[at] = (f"{name}_" if fault == "name" else name, kind, shape, array)
    inputs = inputs[1:] if fault == "missing" else [*inputs, inputs[0]] if fault == "twice" else inputs
    outputs = draw(st.lists(st.sampled_from([*OUTPUTS, "nothing"]), max_size=3))
    return inputs, outputs


@given(requests())
@settings(max_examples=40)
def test_both_forms_of_both_protocols_give_the_same_bits_or_the_same_error(
    keyed: KeyedServer, request_: tuple[list[Input], list[str]]
) -> None:
    inputs, outputs = request_
    plain, binary, length = http_bodies(inputs, outputs, as_of=NOW)
    http = [keyed.post(plain), keyed.post(binary, inference_header_content_length=str(length))]
    messages = [typed_message(inputs, outputs, as_of=NOW), raw_message(inputs, outputs, as_of=NOW)]
    for (status, body, json_length), message in zip(http, messages, strict=True):
        reply = keyed.infer(message)
        if status == 200:
            assert reply.code == "OK", reply
            assert tensors_of_grpc(reply) == tensors_of_http(body, json_length)
        else:
            assert (HTTP_STATUS[reply.code], reply.text) == (status, json.loads(body)["error"])
    if http[0][0] == http[1][0] == 200:
        assert tensors_of_http(*http[0][1:]) == tensors_of_http(*http[1][1:])


@given(st.binary(max_size=300), st.integers(0, 3), st.integers(0, 2_000))
@settings(max_examples=60)
def test_hostile_bytes_are_an_error_of_the_client(keyed: KeyedServer, noise: bytes, kind: int, at: int) -> None:
    good = raw_message(payments(2)).SerializeToString()
    at %= len(good)
    message = [noise, good[:at], good[:at] + noise + good[at:], good[:at] + noise[:3] + good[at + 3 :]][kind]
    reply = keyed.ask(INFER, message, "both")
    assert reply.code in {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}, reply


def test_what_only_a_message_can_get_wrong_is_told(keyed: KeyedServer) -> None:
    message = raw_message(payments())
    del message.raw_input_contents[3:]
    reply = keyed.infer(message)
    assert (reply.code, reply.text.partition(".")[0]) == (
        "INVALID_ARGUMENT",
        "request field 'raw_input_contents': has 3 tensors for 4 inputs",
    )
    message = raw_message(payments())
    message.inputs[2].contents.fp64_contents.append(1.0)
    assert "has contents and raw contents" in keyed.infer(message).text
    message = typed_message([*payments()[:2], ("amount", "FP64", (1,), np.ones(1)), payments()[3]], [])
    message.inputs[2].datatype = "FP16"
    assert "has no field for its contents (got 'FP16')" in keyed.infer(message).text
    message = raw_message(payments())
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    assert "shared memory" in keyed.infer(message).text
    assert keyed.infer(message_class("ModelInferRequest")(model_name="fraud")).text.startswith("request body: has no")
    assert keyed.infer(raw_message(payments(), priority=1)).code == "INVALID_ARGUMENT"
    big = typed_message([*payments()[:3], ("paid_at", "INT64", (1,), np.array([NOW]))], [])
    big.inputs[3].datatype = "INT8"
    big.inputs[3].contents.int_contents.append(300)
    assert "element 0 is not a valid INT8 (got 300)" in keyed.infer(big).text


def test_keys_scopes_and_rates_are_those_of_http(keyed: KeyedServer) -> None:
    message = raw_message(payments())
    assert keyed.infer(message, None).code == "UNAUTHENTICATED"
    assert keyed.infer(message, "admin").code == "PERMISSION_DENIED"
    assert keyed.infer(message, "predict").code == "OK"
    assert keyed.infer(raw_message(payments(), as_of=NOW), "predict").code == "PERMISSION_DENIED"
    load = message_class("RepositoryModelLoadRequest")(model_name="fraud").SerializeToString()
    assert keyed.ask(f"/{SERVICE}/RepositoryModelLoad", load, "predict").code == "PERMISSION_DENIED"
    assert keyed.ask(f"/{SERVICE}/RepositoryModelLoad", load, "admin").code == "OK"
    assert keyed.ask(f"/{SERVICE}/ServerMetadata").code == "UNAUTHENTICATED"
    assert keyed.ask(f"/{SERVICE}/ServerReady").code == "OK"
    assert keyed.ask("/grpc.health.v1.Health/Check").code == "OK"
    replies = [keyed.infer(message, "slow") for _ in range(3)]
    assert {reply.code for reply in replies[1:]} == {"RESOURCE_EXHAUSTED"}
    assert replies[2].metadata["retry-after"] == "1"


def test_every_method_but_health_requires_a_key(keyed: KeyedServer) -> None:
    reflection = {f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")}
    health = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"}
    inference = {f"/{SERVICE}/{name}" for name in method_messages()}
    open_to_all = {*health, f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady"}
    for path in reflection | health | inference:
        request = method_messages().get(path.rpartition("/")[2], (health_pb2.HealthCheckRequest,))[0]()
        for name in {"name", "model_name"} & set(request.DESCRIPTOR.fields_by_name):
            setattr(request, name, "fraud")
        codes = [keyed.ask(path, request.SerializeToString(), key, timeout=1.0).code for key in (None, "predict")]
        assert (codes[0] != "UNAUTHENTICATED") == (path in open_to_all), (path, codes)
        assert codes[1] not in {"UNAUTHENTICATED", "UNIMPLEMENTED"}, (path, codes)


def test_predictions_are_logged_and_counted_like_those_of_http(keyed: KeyedServer) -> None:
    def counted(name: str) -> float:
        connection = HTTPConnection(urlsplit(keyed.server.url).netloc, timeout=PATIENCE_S)
        connection.request("GET", "/metrics", headers={"X-API-Key": keyed.keys["both"]})
        text = connection.getresponse().read().decode()
        connection.close()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    rows, errors = counted("skewless_predictions_total"), counted("skewless_requests_total")
    _, body, length = keyed.post(http_bodies(payments(3), ["prediction_id"], as_of=NOW)[0])
    reply = keyed.infer(typed_message(payments(3), ["prediction_id"], as_of=NOW))
    keyed.infer(raw_message(payments()[:2]))
    assert counted("skewless_predictions_total") == rows + 6
    assert counted("skewless_requests_total") >= errors + 3
    texts = [tensors["prediction_id"][1] for tensors in (tensors_of_http(body, length), tensors_of_grpc(reply))]
    ids = [[item.decode() for item in re.findall(rb"[0-9a-f]{11}-[0-9a-f]{8}-[0-9a-f]+", text)] for text in texts]

    def logged() -> dict[str, dict[str, Any]]:
        rows = [row for file in keyed.place.log_files() for row in pq.read_table(file).to_pylist()]
        return {row["id"]: row for row in rows}

    log = eventually(logged, lambda rows: rows.keys() >= {*ids[0], *ids[1]})
    for one, other in zip(*ids, strict=True):
        different = {name for name, value in log[one].items() if repr(value) != repr(log[other][name])}
        assert different <= {"id", "asked_at", "read_start", "read_end", "row", "checksum"}


def test_slow_clients_of_grpc_do_not_hold_http_up(keyed: KeyedServer) -> None:
    gate = threading.Event()

    def never() -> Iterator[bytes]:
        gate.wait(PATIENCE_S)
        yield b""

    metadata = [("authorization", f"Bearer {keyed.keys['both']}")]
    with grpc.insecure_channel(keyed.address) as channel:
        slow = [channel.stream_unary(INFER).future(never(), metadata=metadata) for _ in range(16)]
        plain = http_bodies(payments(), [])[0]
        assert {keyed.post(plain)[0] for _ in range(50)} == {200}
        assert keyed.infer(raw_message(payments())).code == "OK"
        assert not any(call.done() for call in slow)
        gate.set()
        for call in slow:
            call.cancel()


def test_at_the_end_health_says_so_and_calls_are_answered(keyed: KeyedServer) -> None:
    codes: Counter[str] = Counter()
    message, metadata = raw_message(payments()).SerializeToString(), [("x-api-key", keyed.keys["both"])]
    with (
        serving(keyed.place.repo, **SETTINGS) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        method = channel.unary_unary(INFER)

        def load() -> None:
            while (reply := reply_of(method, message, timeout=PATIENCE_S, metadata=metadata)).code == "OK":
                codes["OK"] += 1
            codes[reply.code] += 1

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        answered = codes["OK"]
        # Between unready and the end of listening, calls are still answered.
        until(lambda: codes["OK"] > answered + 100 or server.process.poll() is not None)
        assert server.process.poll() is None
        assert server.process.wait(PATIENCE_S) == 0
        for thread in threads:
            thread.join(PATIENCE_S)
    # A client without a gateway learns of the end by one call that the server did not begin.
    assert codes.keys() <= {"OK", "UNAVAILABLE", "CANCELLED"}, codes
    assert codes.total() - codes["OK"] == len(threads)


@pytest.mark.soak
def test_workers_share_the_port_and_one_that_is_killed_comes_back(keyed: KeyedServer) -> None:
    message, metadata = raw_message(payments()).SerializeToString(), [("x-api-key", keyed.keys["both"])]
    statistics = message_class("ModelStatisticsRequest")(name="fraud").SerializeToString()
    with serving(keyed.place.repo, **SETTINGS, SKEWLESS_WORKERS="2") as server, ExitStack() as stack:
        address = server.grpc_address
        options = (("grpc.use_local_subchannel_pool", 1),)
        channels = [stack.enter_context(grpc.insecure_channel(address, options=options)) for _ in range(32)]

        def replies() -> Counter[str]:
            return Counter(
                reply_of(channel.unary_unary(INFER), message, timeout=PATIENCE_S, metadata=metadata).code
                for channel in channels
            )

        assert replies() == {"OK": 32}
        counts = set()
        for channel in channels:
            reply = channel.unary_unary(f"/{SERVICE}/ModelStatistics")(statistics, metadata=metadata)
            counts.add(message_class("ModelStatisticsResponse").FromString(reply).model_stats[0].inference_count)
        # Each count is that of the worker behind the channel.
        assert sum(counts) == 32 or counts == {16}, counts
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        workers = [int(pid) for pid in children if b"serving.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert replies().keys() <= {"OK", "UNAVAILABLE"}
        eventually(replies, lambda codes: codes == {"OK": 32})
