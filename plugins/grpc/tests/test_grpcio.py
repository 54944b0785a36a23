"""What the gRPC port relies on inside grpcio, which promises none of it: a new grpcio is tried here first.

Also: the messages are those of ``grpc_predict_v2.proto``, and agree with the clients' in names and numbers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc._cython import cygrpc

from skewless_grpc.messages import POOL, SERVICE
from tests.worlds.ports import free_ports

FOLDER = Path(__file__).parents[1] / "src/skewless_grpc"
FIELDS = """
import importlib, json, pathlib, sys, sysconfig, types
found, packages = {}, pathlib.Path(sysconfig.get_path("purelib"))
def add(message):
    found[message.full_name] = {f.name: [f.number, f.type, f.is_repeated] for f in message.fields}
    for nested in message.nested_types:
        add(nested)
for name in sys.argv[1:]:
    parts = name.split(".")
    for i in range(1, len(parts)):  # packages without their own code, which imports all that the client needs
        package = types.ModuleType(".".join(parts[:i]))
        package.__path__ = [str(packages.joinpath(*parts[:i]))]
        sys.modules.setdefault(package.__name__, package)
    for message in importlib.import_module(name).DESCRIPTOR.message_types_by_name.values():
        add(message)
print(json.dumps(found))
"""
CLIENTS = {
    "triton": ["tritonclient.grpc.service_pb2", "tritonclient.grpc.model_config_pb2"],
    "kserve": ["kserve.protocol.grpc.grpc_predict_v2_pb2"],
}
# The messages in which the two differ; the server reads both (docs/oip.md).
DIFFERENT = {f"inference.RepositoryModel{verb}" for verb in ("LoadRequest", "UnloadRequest")}


def test_the_parts_of_the_core_that_we_use_are_there() -> None:
    assert {"poll", "shutdown"} <= vars(cygrpc.CompletionQueue).keys()
    server = {"add_http2_port", "cancel_all_calls", "destroy", "register_completion_queue", "request_call", "shutdown"}
    assert server | {"start"} <= vars(cygrpc.Server).keys()
    assert {"cancel", "start_server_batch"} <= vars(cygrpc.Call).keys()
    assert {"queue_shutdown", "operation_complete", "queue_timeout"} <= vars(cygrpc.CompletionType).keys()
    assert cygrpc.StatusCode.unauthenticated == grpc.StatusCode.UNAUTHENTICATED.value[0]
    assert hasattr(grpc.ssl_server_credentials([(b"", b"")]), "_credentials")


def test_a_call_goes_through_the_events_that_we_handle() -> None:
    queue, core = cygrpc.CompletionQueue(), cygrpc.Server((), xds=False)
    core.register_completion_queue(queue)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    assert core.add_http2_port(address.encode()) > 0
    core.start()
    core.request_call(queue, queue, "called")
    assert queue.poll(0.0).completion_type == cygrpc.CompletionType.queue_timeout
    replies: list[bytes] = []

    def ask() -> None:
        with grpc.insecure_channel(address) as channel:
            replies.append(channel.unary_unary("/a.B/C")(b"in", metadata=[("k", "v")]))

    client = threading.Thread(target=ask)
    client.start()
    called = queue.poll()
    assert (called.tag, called.success, called.call_details.method) == ("called", True, b"/a.B/C")
    assert called.call_details.deadline > 1e12
    assert ("k", "v") in {(name, value) for name, value in called.invocation_metadata}
    called.call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(0),), "closed")
    called.call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), "message")
    received = queue.poll()
    assert (received.tag, received.batch_operations[0].message()) == ("message", b"in")
    status = cygrpc.SendStatusFromServerOperation((), cygrpc.StatusCode.ok, b"", 0)
    operations = (cygrpc.SendInitialMetadataOperation((), 0), cygrpc.SendMessageOperation(b"out", 0), status)
    called.call.start_server_batch(operations, "replied")
    assert {queue.poll().tag for _ in range(2)} == {"closed", "replied"}
    client.join(20)
    assert replies == [b"out"]
    core.shutdown(queue, "stopped")
    del called, received
    assert queue.poll().tag == "stopped"
    queue.shutdown()
    assert queue.poll().completion_type == cygrpc.CompletionType.queue_shutdown
    core.destroy()


def foreign(*words: str) -> str:
    """Run a program of the clients' environment; return its output."""
    python = Path(f"{sys.prefix}-clients/bin/python")
    assert python.exists(), "run `make setup-clients`"
    return subprocess.run([python, *words], check=True, capture_output=True, text=True, cwd="/").stdout


def test_the_descriptor_is_that_of_the_proto_file(tmp_path: Path) -> None:
    compiled = tmp_path / "out.binpb"
    foreign("-m", "grpc_tools.protoc", "-I", str(FOLDER), f"--descriptor_set_out={compiled}", "grpc_predict_v2.proto")
    stored = FileDescriptorSet.FromString((FOLDER / "grpc_predict_v2.binpb").read_bytes())
    assert FileDescriptorSet.FromString(compiled.read_bytes()) == stored


@pytest.mark.parametrize("client", sorted(CLIENTS))
def test_our_messages_agree_with_those_of_the_clients(client: str) -> None:
    theirs: dict[str, dict[str, list[Any]]] = json.loads(foreign("-c", FIELDS, *CLIENTS[client]))
    ours: dict[str, dict[str, list[Any]]] = {}

    def add(message: Any) -> None:  # noqa: ANN401 - protobuf has no types
        ours[message.full_name] = {
            field.name: [field.number, field.type, field.is_repeated] for field in message.fields
        }
        for nested in message.nested_types:
            add(nested)

    for message in POOL.FindServiceByName(SERVICE).file.message_types_by_name.values():
        add(message)
    shared = ours.keys() & theirs.keys() - (DIFFERENT if client == "kserve" else set())
    assert len(shared) > 20
    for name in shared:
        common = ours[name].keys() & theirs[name].keys()
        assert {field: ours[name][field] for field in common} == {field: theirs[name][field] for field in common}, name
        # A number means one field.
        numbers = {number: field for field, (number, _, _) in theirs[name].items()}
        assert {numbers.get(number, field) for field, (number, _, _) in ours[name].items()} == ours[name].keys(), name
