"""Message classes of the gRPC service, from the compiled descriptor of ``grpc_predict_v2.proto``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

SERVICE = "inference.GRPCInferenceService"
_DESCRIPTORS = Path(__file__).with_name("grpc_predict_v2.binpb")


def _load_pool() -> Any:  # noqa: ANN401 - protobuf has no types
    # A pool of its own: in the default pool, the names would clash with those of a Triton or KServe client.
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(_DESCRIPTORS.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _load_pool()


def message_class(name: str) -> Any:  # noqa: ANN401 - protobuf has no types
    r"""Return the class of a message.

    >>> message_class("ServerLiveResponse")(live=True).SerializeToString()
    b'\x08\x01'
    """
    return GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


def method_messages() -> dict[str, tuple[Any, Any]]:
    """Return the classes of request and response of each method, by the method's name."""
    methods = POOL.FindServiceByName(SERVICE).methods
    return {
        method.name: (GetMessageClass(method.input_type), GetMessageClass(method.output_type)) for method in methods
    }
